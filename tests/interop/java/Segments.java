import java.io.File;
import java.util.List;
import org.apache.kafka.common.record.internal.FileLogInputStream;
import org.apache.kafka.common.record.internal.FileRecords;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.utils.Utils;

/** Reading a broker's segment files with Kafka's own classes. */
final class Segments {
    private Segments() {}

    /** FILE…: every batch of the segments, checked, and its records' offsets and values. */
    static void dump(List<String> args) throws Exception {
        for (String path : args) {
            try (FileRecords records = FileRecords.open(new File(path), false)) {
                int size = 0;
                for (FileLogInputStream.FileChannelRecordBatch batch : records.batches()) {
                    batch.ensureValid();
                    size += batch.sizeInBytes();
                    int count = 0;
                    long last = -1;
                    for (Record record : batch) {
                        record.ensureValid();
                        last = record.offset();
                        count++;
                        Main.print("record", record.hasValue() ? Utils.utf8(record.value(), record.valueSize()) : null);
                    }
                    boolean whole = batch.magic() == RecordBatch.MAGIC_VALUE_V2
                            && last == batch.lastOffset() && count == batch.countOrNull();
                    Main.print("batch", List.of(batch.baseOffset(), batch.lastOffset(),
                            batch.partitionLeaderEpoch(), batch.compressionType().name, batch.producerId() >= 0, whole));
                }
                Main.print("rest", records.sizeInBytes() - size);
            }
        }
    }
}
