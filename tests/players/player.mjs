// A real player, driven by JSON lines on standard input.
//
//   node player.mjs HOST PORT NAME
//
// Commands:  {"do":"chat","text":"hello"}   {"do":"place","block":"gold_block"}
//            {"do":"look","at":[x,y,z]}     {"do":"quit"}
//            {"do":"stored","world":"FOLDER","at":[x,y,z]}
// Events:    spawned, heard, placed, block, stored, left, failed; one JSON object a line.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'

// The packages lie where they were prepared, not beside this file.
const require = createRequire(path.join(process.cwd(), 'package.json'))
const mineflayer = require('mineflayer')
const { Vec3 } = require('vec3')

const [host, port, username] = process.argv.slice(2)
const tell = (event, more = {}) => process.stdout.write(JSON.stringify({ event, ...more }) + '\n')
const at = (position) => [position.x, position.y, position.z]

const bot = mineflayer.createBot({ host, port: Number(port), username, auth: 'offline', version: '1.18.2' })
bot.once('spawn', async () => {
  await bot.waitForChunksToLoad()
  tell('spawned', { position: at(bot.entity.position.floored()) })
})
bot.on('messagestr', (text) => tell('heard', { text }))
bot.on('kicked', (reason) => tell('failed', { why: `kicked: ${JSON.stringify(reason)}` }))
bot.on('error', (error) => tell('failed', { why: error.message }))
bot.once('end', (reason) => {
  tell('left', { reason })
  process.exit(0)
})

const commands = {
  chat: ({ text }) => bot.chat(text),
  look: async ({ at: [x, y, z] }) => {
    await bot.waitForChunksToLoad()
    tell('block', { at: [x, y, z], block: bot.blockAt(new Vec3(x, y, z))?.name ?? null })
  },
  // In creative mode: the block goes on top of the ground beside the player.
  place: async ({ block }) => {
    const Item = require('prismarine-item')(bot.version)
    await bot.creative.setInventorySlot(36, new Item(bot.registry.itemsByName[block].id, 1))
    bot.setQuickBarSlot(0)
    const spot = bot.entity.position.floored().offset(2, 0, 0)
    let ground = bot.blockAt(spot.offset(0, 3, 0))
    while (ground && ground.boundingBox !== 'block') ground = bot.blockAt(ground.position.offset(0, -1, 0))
    const target = ground.position.offset(0, 1, 0)
    await bot.lookAt(target)
    await bot.placeBlock(ground, new Vec3(0, 1, 0))
    tell('placed', { at: at(target), block: bot.blockAt(target)?.name })
  },
  // The block as the server's files have it: read from a copy, because the reader may mend
  // what it opens.
  stored: async ({ world, at: [x, y, z] }) => {
    const Anvil = require('prismarine-provider-anvil').Anvil(bot.version)
    const copy = fs.mkdtempSync(path.join(os.tmpdir(), 'zlh-world-'))
    try {
      fs.cpSync(path.join(world, 'region'), copy, { recursive: true })
      const anvil = new Anvil(copy)
      const chunk = await anvil.load(x >> 4, z >> 4)
      const name = chunk?.getBlock(new Vec3(x & 15, y, z & 15)).name ?? null
      await anvil.close()
      tell('stored', { at: [x, y, z], block: name })
    } catch (error) {
      // Caught in the middle of a write.
      tell('stored', { at: [x, y, z], block: null, why: error.message })
    } finally {
      fs.rmSync(copy, { recursive: true })
    }
  },
  quit: () => bot.quit(),
}

createInterface({ input: process.stdin }).on('line', async (line) => {
  try {
    const command = JSON.parse(line)
    await commands[command.do](command)
  } catch (error) {
    tell('failed', { why: String(error.stack ?? error) })
  }
}).on('close', () => bot.quit())
