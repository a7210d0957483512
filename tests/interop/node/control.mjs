// control.mjs BOOTSTRAP CONTROL TOPIC: a test in Node.js that has a broker fail by its control port, and sees
// kafkajs retry; prints one JSON object.
import kafkajs from 'kafkajs'

const [bootstrap, address, topic] = process.argv.slice(2)
const control = `http://${address}/v1`

async function broker(method, path, body) {
  const answer = await fetch(control + path, {
    method,
    headers: { 'Content-Type': 'application/json' },
    body: body && JSON.stringify(body),
  })
  const said = await answer.json()
  if (!answer.ok) throw new Error(`${said.error.code}: ${said.error.message}`)
  return said
}

const kafka = new kafkajs.Kafka({
  clientId: 'shop',
  brokers: [bootstrap],
  logLevel: kafkajs.logLevel.NOTHING,
  retry: { initialRetryTime: 10 },
})

await broker('POST', '/topics', { name: topic, partitions: 1 })
const fault = await broker('POST', '/faults', {
  fault: 'fail', api: 'Produce', error: 'NOT_ENOUGH_REPLICAS', topic, times: 2,
})
const producer = kafka.producer({ maxInFlightRequests: 1 })
await producer.connect()
await producer.send({ topic, messages: [{ key: 'k', value: 'an order' }] })
const { requests } = await broker('POST', '/requests/wait', { api: 'Produce', client_id: 'shop', count: 3 })

// The answer to the next one is lost: the client sends it again, and it is there twice.
await broker('POST', '/faults', { fault: 'drop', api: 'Produce', after: true, times: 1 })
await producer.send({ topic, messages: [{ value: 'sent again' }] })
await producer.disconnect()
const { count } = await broker('POST', `/topics/${topic}/wait`, { count: 3 })
const { records } = await broker('GET', `/topics/${topic}/records`)
const { hits, ended } = await broker('GET', `/faults/${fault.id}`)
const refused = await broker('POST', '/faults', { fault: 'fial' }).catch((error) => error.message)

console.log(JSON.stringify({
  faults: requests.map((request) => request.fault?.error ?? null),
  hits,
  ended,
  count,
  values: records.map((record) => record.value),
  refused,
}))
