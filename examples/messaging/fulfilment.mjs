// Fulfilment (kafkajs): packs what is paid, and answers what is in stock and what it costs.
//
//   node fulfilment.mjs --bootstrap HOST:PORT --name NAME --directory DIR
//
// Packing: the group shop.fulfilment reads shop.payments; a parcel is a file in DIR/parcels that can be written
// once, then shop.shipments is told. Answering: the group shop.stock reads shop.stock.questions; the answer goes
// where the question's headers want it, under the question's id. Start more of them and they share the work.
import kafkajs from 'kafkajs'
import { options, pause, untilStopped, writeOnce } from './kit.mjs'

const PACKING_MS = 12
const CENTS = { kettle: 3900, lamp: 5400, teapot: 2600, chair: 8900, rug: 12900, clock: 3100, vase: 1900, mirror: 7400 }

const { bootstrap, name, directory } = options()
const kafka = new kafkajs.Kafka({ clientId: name, brokers: [bootstrap], logLevel: kafkajs.logLevel.WARN })
const producer = kafka.producer({ allowAutoTopicCreation: false })
// A small maxWaitTimeInMs: kafkajs sends no heartbeat while a fetch waits, and so hears late of a rebalance.
const member = { sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTimeInMs: 100, allowAutoTopicCreation: false }
const packer = kafka.consumer({ ...member, groupId: 'shop.fulfilment' })
const clerk = kafka.consumer({ ...member, groupId: 'shop.stock' })

async function pack({ message }) {
  const payment = JSON.parse(message.value)
  await pause(PACKING_MS)
  const label = `${payment.quantity} x ${payment.item} for ${payment.customer}\n`
  if (!writeOnce(`${directory}/parcels`, `${payment.order}.txt`, label, name)) {
    console.log(`packed before: ${payment.order}`)
  }
  const shipment = { order: payment.order, customer: payment.customer, item: payment.item, packed_by: name }
  await producer.send({
    topic: 'shop.shipments',
    acks: -1,
    messages: [{ key: message.key, value: JSON.stringify(shipment) }],
  })
}

async function answer({ message }) {
  const { order, item, quantity } = JSON.parse(message.value)
  const headers = message.headers
  await producer.send({
    topic: headers['reply-to'].toString(),
    acks: -1,
    messages: [
      {
        partition: Number(headers['reply-partition'].toString()),
        key: message.key,
        value: JSON.stringify({ order, cents: CENTS[item] * quantity, answered_by: name }),
        headers: { 'correlation-id': headers['correlation-id'] },
      },
    ],
  })
}

for (const consumer of [packer, clerk]) {
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) =>
    console.log(`${payload.groupId}: ${JSON.stringify(payload.memberAssignment)}`),
  )
  // What kafkajs cannot mend ends the process; whoever started it sees that.
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    console.error(payload.error)
    if (!payload.restart) process.exit(1)
  })
}
untilStopped(async () => {
  await Promise.all([packer.disconnect(), clerk.disconnect()])
  await producer.disconnect()
})
await Promise.all([producer.connect(), packer.connect(), clerk.connect()])
await packer.subscribe({ topics: ['shop.payments'], fromBeginning: true })
await clerk.subscribe({ topics: ['shop.stock.questions'], fromBeginning: true })
// run() returns once the group has let us in: not one after the other.
await Promise.all([
  clerk.run({ eachMessage: answer, autoCommitInterval: 500 }),
  packer.run({ eachMessage: pack, autoCommitInterval: 500 }),
])
