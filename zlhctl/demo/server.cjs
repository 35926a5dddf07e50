// Starts flying-squid with the settings file given as the only argument.
//
// Its own app.js lets the defaults win over the file, so that neither port nor
// version could be set; here the file wins.
'use strict'

const fs = require('node:fs')
const path = require('node:path')

const defaults = require('flying-squid/config/default-settings.json')
const { createMCServer } = require('flying-squid')

const settings = { ...defaults, ...JSON.parse(fs.readFileSync(process.argv[2], 'utf8')) }

process.on('unhandledRejection', (error) => console.log(error.stack ?? error))

createMCServer({ ...settings, worldFolder: path.join('world', settings.version) })
