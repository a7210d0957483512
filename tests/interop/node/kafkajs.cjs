// kafkajs.cjs BOOTSTRAP SUBCOMMAND NAME: kafkajs at work against one broker; prints one JSON object.
'use strict'
const { Kafka, logLevel, CompressionTypes, ConfigResourceTypes } = require('kafkajs')
const assert = require('node:assert')
const { readFileSync } = require('node:fs')

const [bootstrap, subcommand, name] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'kafkajs', brokers: [bootstrap], logLevel: logLevel.NOTHING })

async function until(what, condition) {
  const deadline = Date.now() + 40_000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`did not happen: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

async function createTopic(partitions) {
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic: name, numPartitions: partitions }], waitForLeaders: true })
  return admin
}

/** A consumer of the group `name`, with what it read and was assigned. */
async function member(options = {}) {
  const consumer = kafka.consumer({ groupId: name, heartbeatInterval: 200, maxWaitTimeInMs: 200, ...options })
  const state = { consumer, values: [], messages: [], assigned: [] }
  consumer.on(consumer.events.GROUP_JOIN, (event) => {
    state.assigned = event.payload.memberAssignment[name] ?? []
  })
  await consumer.connect()
  await consumer.subscribe({ topics: [name], fromBeginning: true })
  await consumer.run({
    autoCommitInterval: 100,
    eachMessage: async ({ partition, message }) => {
      state.values.push(message.value === null ? null : message.value.toString())
      state.messages.push({
        partition,
        offset: message.offset,
        key: message.key === null ? null : message.key.toString(),
        value: message.value === null ? null : message.value.toString(),
        timestamp: message.timestamp,
        headers: Object.fromEntries(Object.entries(message.headers).map(([k, v]) => [k, v.toString()])),
      })
    },
  })
  return state
}

async function records() {
  const admin = await createTopic(1)
  const now = Date.now()
  const sent = []
  const cases = [
    [0, CompressionTypes.None, false],
    [1, CompressionTypes.None, false],
    [-1, CompressionTypes.GZIP, false],
    [-1, CompressionTypes.None, true],
    [-1, CompressionTypes.GZIP, true],
  ]
  for (const [acks, compression, idempotent] of cases) {
    const producer = kafka.producer({ idempotent })
    await producer.connect()
    const messages = Array.from({ length: 50 }, (_, i) => ({
      key: i % 6 === 0 ? null : `key ${i}`,
      value: i % 6 === 3 ? null : `value ${i}`,
      timestamp: String(now + i),
      headers: { acks: String(acks), i: String(i) },
    }))
    await producer.send({ topic: name, acks, compression, messages })
    if (acks === 0) {
      await until('acks=0 appended', async () => (await admin.fetchTopicOffsets(name))[0].high === '50')
    }
    await producer.disconnect()
    sent.push(...messages)
  }
  const { consumer, messages } = await member()
  await until('all read', () => messages.length === sent.length)
  messages.forEach((message, i) => {
    assert.deepStrictEqual(message, { partition: 0, offset: String(i), ...sent[i] })
  })
  consumer.seek({ topic: name, partition: 0, offset: '240' })
  await until('read again', () => messages.length === sent.length + 10)
  await consumer.disconnect()
  await admin.disconnect()
  return { read: messages.length }
}

async function group() {
  const admin = await createTopic(4)
  const producer = kafka.producer()
  await producer.connect()
  let sent = 0
  const send = async () => {
    const messages = Array.from({ length: 40 }, (_, i) => ({ value: String(sent + i), partition: i % 4 }))
    await producer.send({ topic: name, acks: -1, messages })
    sent += 40
  }
  const first = await member()
  await until('the first owns all', () => first.assigned.length === 4)
  await send()
  const second = await member()
  await until('two share', () => first.assigned.length === 2 && second.assigned.length === 2)
  await send()
  await until('all read', () => new Set([...first.values, ...second.values]).size === sent)
  const description = (await admin.describeGroups([name])).groups[0]
  await second.consumer.disconnect()
  await until('the first owns all again', () => first.assigned.length === 4)
  await send()
  await until('all read', () => new Set([...first.values, ...second.values]).size === sent)
  await first.consumer.disconnect()
  const offsets = await admin.fetchOffsets({ groupId: name, topics: [name] })
  await producer.disconnect()
  await admin.disconnect()
  return {
    read: sent,
    state: description.state,
    protocol: description.protocol,
    members: description.members.length,
    committed: offsets[0].partitions.map(({ offset }) => Number(offset)),
  }
}

async function refused(call) {
  try {
    await call()
    return 'accepted'
  } catch (error) {
    return error.type ?? error.groups?.[0]?.error?.type ?? error.errors?.[0]?.type ?? error.name
  }
}

async function admin() {
  const client = await createTopic(2)
  const resource = { type: ConfigResourceTypes.TOPIC, name }
  const result = {}
  result.again = await client.createTopics({ topics: [{ topic: name }] })
  result.bad = await refused(() => client.createTopics({ topics: [{ topic: 'a/b' }] }))
  await client.createPartitions({ topicPartitions: [{ topic: name, count: 3 }] })
  const metadata = await client.fetchTopicMetadata({ topics: [name] })
  result.partitions = metadata.topics[0].partitions.length
  await client.alterConfigs({ resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: '-1' }] }] })
  const configs = await client.describeConfigs({ resources: [{ ...resource, configNames: ['retention.ms'] }] })
  result.retention = configs.resources[0].configEntries[0].configValue
  const producer = kafka.producer()
  await producer.connect()
  const messages = Array.from({ length: 10 }, (_, i) => ({ value: String(i), partition: 0, timestamp: String(1000 * i) }))
  await producer.send({ topic: name, messages })
  await producer.disconnect()
  const byTime = await client.fetchTopicOffsetsByTimestamp(name, 4500)
  result.byTime = byTime.find(({ partition }) => partition === 0).offset
  await client.deleteTopicRecords({ topic: name, partitions: [{ partition: 0, offset: '3' }] })
  result.low = (await client.fetchTopicOffsets(name)).find(({ partition }) => partition === 0).low
  await client.setOffsets({ groupId: name, topic: name, partitions: [{ partition: 0, offset: '5' }] })
  const offsets = await client.fetchOffsets({ groupId: name, topics: [name] })
  result.offset = offsets[0].partitions.find(({ partition }) => partition === 0).offset
  result.listed = (await client.listGroups()).groups.some(({ groupId }) => groupId === name)
  result.deleted = (await client.deleteGroups([name]))[0].errorCode ?? 0
  result.missing = await refused(() => client.deleteGroups([name]))
  result.brokers = (await client.describeCluster()).brokers.map(({ host, port }) => `${host}:${port}`)
  await client.deleteTopics({ topics: [name] })
  result.topics = (await client.listTopics()).includes(name)
  await client.disconnect()
  return result
}

/** Values by partition, as a consumer reads them until `last` has come from each. */
async function read(readUncommitted, last) {
  const options = { groupId: `${name}-${readUncommitted}`, maxWaitTimeInMs: 200, readUncommitted }
  const consumer = kafka.consumer(options)
  const values = [[], []]
  await consumer.connect()
  await consumer.subscribe({ topics: [name], fromBeginning: true })
  await consumer.run({ eachMessage: async ({ partition, message }) => values[partition].push(message.value.toString()) })
  await until('the last value of each', () => values.every((each) => each.includes(last)))
  await consumer.disconnect()
  return values
}

/** Some transactions, of which the odd ones are aborted; then a producer fences the one before. */
async function transactions() {
  const client = await createTopic(2)
  const options = { idempotent: true, maxInFlightRequests: 1, transactionalId: name }
  const producer = kafka.producer(options)
  await producer.connect()
  const both = (value) => ({ topic: name, messages: [0, 1].map((partition) => ({ partition, value })) })
  for (let number = 0; number < 6; number++) {
    const transaction = await producer.transaction()
    await transaction.send(both(String(number)))
    const offsets = [{ topic: name, partitions: [{ partition: 0, offset: String(number + 1) }] }]
    await transaction.sendOffsets({ consumerGroupId: name, topics: offsets })
    await (number % 2 ? transaction.abort() : transaction.commit())
  }
  const open = await producer.transaction()
  await open.send(both('of the zombie'))
  const successor = kafka.producer(options)
  await successor.connect()
  const transaction = await successor.transaction()
  const fenced = await refused(() => open.commit())
  await transaction.send(both('last'))
  await transaction.commit()
  const result = { fenced, committed: await read(false, 'last'), uncommitted: await read(true, 'last') }
  const stored = await client.fetchOffsets({ groupId: name, topics: [name] })
  result.offset = stored[0].partitions.find(({ partition }) => partition === 0).offset
  await producer.disconnect()
  await successor.disconnect()
  await client.disconnect()
  return result
}

/** One message written and read by somebody who logs in so; or why not. */
async function visit({ label, bootstrap, topic, tls, mechanism, username, password, token }) {
  const sasl = { mechanism, username, password, oauthBearerProvider: async () => ({ value: token }) }
  const retry = { initialRetryTime: 50, retries: 3 }
  const options = { clientId: label, brokers: [bootstrap], logLevel: logLevel.NOTHING, ssl: tls, retry }
  const kafka = new Kafka(mechanism ? { ...options, sasl } : options)
  const producer = kafka.producer()
  const consumer = kafka.consumer({ groupId: `${topic}-${label}`, maxWaitTimeInMs: 200 })
  try {
    await producer.connect()
    await producer.send({ topic, messages: [{ value: label }] })
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    const values = []
    await consumer.run({ eachMessage: async ({ message }) => values.push(message.value.toString()) })
    await until(`${label} read`, () => values.includes(label))
    return 'read'
  } catch (error) {
    return error.type ?? error.cause?.type ?? error.cause?.name ?? error.name
  } finally {
    await Promise.all([producer.disconnect(), consumer.disconnect()])
  }
}

/** NAME is a file of logins, as JSON: what becomes of each. */
async function logins() {
  const all = JSON.parse(readFileSync(name))
  return Object.fromEntries(await Promise.all(all.map(async (login) => [login.label, await visit(login)])))
}

const run = { records, group, admin, transactions, logins }[subcommand]
run().then(
  (result) => console.log(JSON.stringify(result)),
  (error) => {
    console.error(error)
    process.exit(1)
  },
)
