// What the two services in Node.js share: their options, and effects that happen once however often they are asked for.
import fs from 'node:fs'
import path from 'node:path'

/** The options of a service: `--bootstrap HOST:PORT --name NAME --directory DIR`. */
export function options() {
  const given = process.argv.slice(2)
  const value = (name) => given[given.indexOf(`--${name}`) + 1]
  return { bootstrap: value('bootstrap'), name: value('name'), directory: value('directory') }
}

/**
 * Write a file that nobody has written before; false if somebody has. It appears whole or not at all, and of two
 * who try at once one succeeds: link() refuses a name that is taken.
 */
export function writeOnce(directory, name, text, by) {
  fs.mkdirSync(directory, { recursive: true })
  const final = path.join(directory, name)
  const draft = path.join(directory, `.${by}.draft`)
  fs.writeFileSync(draft, text)
  try {
    fs.linkSync(draft, final)
    return true
  } catch (error) {
    if (error.code !== 'EEXIST') throw error
    return false
  } finally {
    fs.unlinkSync(draft)
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Call `stop` at the first SIGTERM or SIGINT, then exit with 0. What fails before ends the process with 1. */
export function untilStopped(stop) {
  let stopping = false
  for (const signal of ['SIGTERM', 'SIGINT']) {
    process.on(signal, async () => {
      if (stopping) return
      stopping = true
      await stop()
      process.exit(0)
    })
  }
}
