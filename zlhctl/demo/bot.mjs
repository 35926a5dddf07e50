// A player that joins, says one line, waits until it has heard itself, and leaves.
//
//   node bot.mjs HOST PORT NAME LINE
//
// Exit code 0: it was heard. Everything else: it was not, and why stands on
// standard error.
import { createRequire } from 'node:module'

const [host, port, username, line] = process.argv.slice(2)
const mineflayer = createRequire(import.meta.url)('mineflayer')

const fail = (why) => {
  console.error(why)
  process.exit(1)
}

const deadline = setTimeout(() => fail('timed out'), 30_000)
const bot = mineflayer.createBot({ host, port: Number(port), username, auth: 'offline', version: '1.18.2' })

bot.once('spawn', () => bot.chat(line))
bot.on('messagestr', (text) => {
  if (!text.includes(line)) return
  clearTimeout(deadline)
  bot.once('end', () => process.exit(0))
  bot.quit()
})
bot.on('kicked', (reason) => fail(`kicked: ${reason}`))
bot.on('error', (error) => fail(error.message))
