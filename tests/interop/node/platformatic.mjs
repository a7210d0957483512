// platformatic.mjs BOOTSTRAP SUBCOMMAND NAME: @platformatic/kafka at work; prints one JSON object.
import assert from 'node:assert'
import { readFileSync } from 'node:fs'
import { Admin, Consumer, Producer, stringDeserializers, stringSerializers } from '@platformatic/kafka'

const [bootstrap, subcommand, name] = process.argv.slice(2)
const common = { clientId: 'platformatic', bootstrapBrokers: [bootstrap] }

async function until(what, condition) {
  const deadline = Date.now() + 40_000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`did not happen: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

async function createTopic(partitions) {
  const admin = new Admin(common)
  await admin.createTopics({ topics: [name], partitions, replicas: 1 })
  return admin
}

/** A member of the group `name`, with the values that it read. */
async function member() {
  const consumer = new Consumer({
    ...common,
    groupId: name,
    deserializers: stringDeserializers,
    heartbeatInterval: 200,
    sessionTimeout: 10_000,
    maxWaitTime: 200,
  })
  const stream = await consumer.consume({ topics: [name], mode: 'committed', fallbackMode: 'earliest', autocommit: 100 })
  const state = { consumer, stream, messages: [] }
  stream.on('data', (message) => state.messages.push(message))
  state.owned = () => (consumer.assignments ?? []).flatMap(({ partitions }) => partitions).length
  return state
}

async function records() {
  const admin = await createTopic(1)
  const sent = []
  for (const [idempotent, compression] of [
    [false, 'none'], [false, 'gzip'], [true, 'none'], [true, 'snappy'], [true, 'lz4'], [true, 'zstd'],
  ]) {
    // zstd came with Node.js 22.15.
    if (compression === 'zstd' && !(await import('node:zlib')).zstdCompressSync) continue
    const producer = new Producer({ ...common, serializers: stringSerializers, idempotent, compression, acks: -1 })
    const messages = Array.from({ length: 50 }, (_, i) => ({
      topic: name,
      partition: 0,
      key: `key ${i}`,
      value: `${compression} ${i}`,
      headers: { i: String(i) },
    }))
    const { offsets } = await producer.send({ messages })
    assert.strictEqual(Number(offsets[0].offset), sent.length)
    sent.push(...messages)
    await producer.close()
  }
  const { consumer, stream, messages } = await member()
  await until('all read', () => messages.length === sent.length)
  messages.forEach((message, i) => {
    assert.strictEqual(Number(message.offset), i)
    assert.strictEqual(message.key, sent[i].key)
    assert.strictEqual(message.value, sent[i].value)
    assert.strictEqual(message.headers.get('i'), sent[i].headers.i)
  })
  const offsets = await consumer.listOffsets({ topics: [name] })
  assert.strictEqual(Number(offsets.get(name)[0]), sent.length)
  await stream.close()
  await consumer.close(true)
  await admin.close()
  return { read: messages.length >= 200 }
}

async function group() {
  const admin = await createTopic(4)
  const producer = new Producer({ ...common, serializers: stringSerializers })
  let sent = 0
  const send = async () => {
    const messages = Array.from({ length: 40 }, (_, i) => ({ topic: name, value: String(sent + i), partition: i % 4 }))
    await producer.send({ messages, acks: -1 })
    sent += 40
  }
  const first = await member()
  await until('the first owns all', () => first.owned() === 4)
  await send()
  const second = await member()
  await until('two share', () => first.owned() === 2 && second.owned() === 2)
  await send()
  const read = () => new Set([...first.messages, ...second.messages].map(({ value }) => value)).size
  await until('all read', () => read() === sent)
  const state = (await admin.describeGroups({ groups: [name] })).get(name)
  await second.stream.close()
  await second.consumer.close(true)
  await until('the first owns all again', () => first.owned() === 4)
  await send()
  await until('all read again', () => read() === sent)
  await first.stream.close()
  await first.consumer.close(true)
  await producer.close()
  await admin.close()
  return { read: sent, state: state.state, members: state.members.size }
}

async function admin() {
  const client = await createTopic(2)
  const result = {}
  result.listed = (await client.listTopics()).includes(name)
  await client.createPartitions({ topics: [{ name, count: 3, assignments: null }] })
  await client.incrementalAlterConfigs({
    resources: [{
      resourceType: 2,
      resourceName: name,
      configs: [{ name: 'retention.ms', configOperation: 0, value: '777777' }],
    }],
    validateOnly: false,
  })
  const [described] = await client.describeConfigs({
    resources: [{ resourceType: 2, resourceName: name, configurationKeys: ['retention.ms'] }],
    includeSynonyms: false,
    includeDocumentation: false,
  })
  result.retention = described.configs[0].value
  const producer = new Producer({ ...common, serializers: stringSerializers })
  const messages = Array.from({ length: 10 }, (_, i) => ({ topic: name, value: String(i), partition: 0 }))
  await producer.send({ messages })
  const metadata = await producer.metadata({ topics: [name] })
  result.partitions = metadata.topics.get(name).partitions.length
  await producer.close()
  await client.deleteRecords({ topics: [{ name, partitions: [{ partition: 0, offset: 3n }] }] })
  const offsets = await client.listOffsets({ topics: [{ name, partitions: [{ partitionIndex: 0, timestamp: -2n }] }] })
  result.low = Number(offsets[0].partitions[0].offset)
  await client.alterConsumerGroupOffsets({
    groupId: name,
    topics: [{ name, partitionOffsets: [{ partition: 0, offset: 5n }] }],
  })
  const [committed] = await client.listConsumerGroupOffsets({ groups: [name] })
  result.offset = Number(committed.topics[0].partitions[0].committedOffset)
  result.group = (await client.listGroups()).has(name)
  await client.deleteGroups({ groups: [name] })
  await client.deleteTopics({ topics: [name] })
  result.left = (await client.listTopics()).includes(name)
  await client.close()
  return result
}

/** Values by partition, as a consumer reads them until `last` has come from each. */
async function read(isolationLevel, last) {
  const consumer = new Consumer({
    ...common, groupId: `${name}-${isolationLevel}`, deserializers: stringDeserializers, maxWaitTime: 200, isolationLevel,
  })
  const stream = await consumer.consume({ topics: [name], mode: 'earliest' })
  const values = [[], []]
  stream.on('data', ({ partition, value }) => values[partition].push(value))
  await until('the last value of each', () => values.every((each) => each.includes(last)))
  await stream.close()
  await consumer.close(true)
  return values
}

/**
 * Three transactions, of which the last is aborted; then a producer fences the one before. It (1.35.0) knows one aborted
 * transaction of each producer in a fetch, the last one, and delivers the others: so there is no second one here.
 */
async function transactions() {
  const client = await createTopic(2)
  // Without this it says that it has id 0, and is fenced where the transactional id has been used before.
  const fresh = { producerId: -1n, producerEpoch: -1 }
  const options = { ...common, ...fresh, serializers: stringSerializers, transactionalId: name, idempotent: true }
  const producer = new Producer({ ...options, retries: 20, retryDelay: 50 })
  const both = (value) => ({ messages: [0, 1].map((partition) => ({ topic: name, partition, value })) })
  // What is read, one message for each transaction, whose offset is committed in it.
  const plain = new Producer({ ...common, serializers: stringSerializers })
  const input = `${name}-in`
  await client.createTopics({ topics: [input], partitions: 1, replicas: 1 })
  await plain.send({ messages: Array.from({ length: 3 }, (_, i) => ({ topic: input, value: String(i) })), acks: -1 })
  const consumer = new Consumer({
    ...common, groupId: name, deserializers: stringDeserializers, maxWaitTime: 200, autocommit: false,
  })
  const stream = await consumer.consume({ topics: [input], mode: 'earliest', autocommit: false })
  const messages = []
  stream.on('data', (message) => messages.push(message))
  await until('the input', () => messages.length === 3)
  for (const message of messages) {
    const transaction = await producer.beginTransaction()
    await transaction.send({ ...both(message.value), acks: -1 })
    await transaction.addConsumer(consumer)
    await transaction.addOffset(message)
    await (message.value === '2' ? transaction.abort() : transaction.commit())
  }
  await stream.close()
  await consumer.close(true)
  const open = await producer.beginTransaction()
  await open.send({ messages: [{ topic: input, value: 'of the zombie' }], acks: -1 })
  const successor = new Producer({ ...options, retries: 20, retryDelay: 50 })
  const transaction = await successor.beginTransaction()
  const fenced = await open.commit().then(() => 'accepted', codes)
  await transaction.send({ ...both('last'), acks: -1 })
  await transaction.commit()
  const result = { fenced, committed: await read(1, 'last'), uncommitted: await read(0, 'last') }
  const [committed] = await client.listConsumerGroupOffsets({ groups: [name] })
  result.offset = Number(committed.topics[0].partitions[0].committedOffset)
  const where = { topics: [{ name, partitions: [{ partitionIndex: 0, timestamp: -1n }] }] }
  const ends = [0, 1].map((isolationLevel) => client.listOffsets({ ...where, isolationLevel }))
  result.settled = (await Promise.all(ends)).map((found) => Number(found[0].partitions[0].offset))
  await Promise.all([producer, successor, plain, client].map((each) => each.close()))
  return result
}

/** The first error of the protocol among the causes. */
function codes(error) {
  if (error.apiId !== undefined) return error.apiId
  for (const cause of [...(error.errors ?? []), ...(error.cause ? [error.cause] : [])]) {
    const found = codes(cause)
    if (found !== undefined) return found
  }
  return undefined
}

/** One message written and read by somebody who logs in so; or why not. */
async function visit({ label, bootstrap, topic, tls, mechanism, username, password, token }) {
  const sasl = mechanism && { mechanism, username, password, token }
  const options = { clientId: label, bootstrapBrokers: [bootstrap], tls, sasl, retries: 2, retryDelay: 100 }
  const producer = new Producer({ ...options, serializers: stringSerializers })
  const consumer = new Consumer({
    ...options, groupId: `${topic}-${label}`, deserializers: stringDeserializers, maxWaitTime: 200,
  })
  try {
    await producer.send({ messages: [{ topic, value: label }], acks: -1 })
    const stream = await consumer.consume({ topics: [topic], mode: 'earliest' })
    const values = []
    stream.on('data', ({ value }) => values.push(value))
    await until(`${label} read`, () => values.includes(label))
    await stream.close()
    return 'read'
  } catch (error) {
    return codes(error) ?? error.code
  } finally {
    await Promise.all([producer.close(), consumer.close(true)])
  }
}

/** NAME is a file of logins, as JSON: what becomes of each. */
async function logins() {
  const all = JSON.parse(readFileSync(name))
  return Object.fromEntries(await Promise.all(all.map(async (login) => [login.label, await visit(login)])))
}

const run = { records, group, admin, transactions, logins }[subcommand]
run().then(
  (result) => {
    console.log(JSON.stringify(result))
    process.exit(0)
  },
  (error) => {
    console.error(error)
    process.exit(1)
  },
)
