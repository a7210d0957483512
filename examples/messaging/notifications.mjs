// Notifications (@platformatic/kafka): a mail to the customer for each parcel that has left.
//
//   node notifications.mjs --bootstrap HOST:PORT --name NAME --directory DIR
//
// The group shop.notifications reads shop.shipments; a mail is a file in DIR/outbox that can be written once, then
// shop.mails is told. The offset is committed after that.
import { Consumer, Producer, stringDeserializers, stringSerializers } from '@platformatic/kafka'
import { options, untilStopped, writeOnce } from './kit.mjs'

const { bootstrap, name, directory } = options()
const common = { clientId: name, bootstrapBrokers: [bootstrap] }
const producer = new Producer({ ...common, serializers: stringSerializers, acks: -1 })
const consumer = new Consumer({
  ...common,
  groupId: 'shop.notifications',
  deserializers: stringDeserializers,
  sessionTimeout: 6000,
  heartbeatInterval: 500,
  maxWaitTime: 100,
})

function mail({ order, customer, item }) {
  return `To: ${customer}@example.org\nSubject: Your ${item} is on its way\n\nOrder ${order} has left our house.\n`
}

const stream = await consumer.consume({
  topics: ['shop.shipments'],
  mode: 'committed',
  fallbackMode: 'earliest',
  autocommit: false,
})
untilStopped(async () => {
  await stream.close()
  await consumer.close(true)
  await producer.close()
})
for await (const message of stream) {
  const shipment = JSON.parse(message.value)
  if (!writeOnce(`${directory}/outbox`, `${shipment.order}.eml`, mail(shipment), name)) {
    console.log(`mailed before: ${shipment.order}`)
  }
  const sent = { order: shipment.order, customer: shipment.customer, mailed_by: name }
  await producer.send({ messages: [{ topic: 'shop.mails', key: message.key, value: JSON.stringify(sent) }] })
  await message.commit()
}
