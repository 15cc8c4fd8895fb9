// Uses every resource of the openwhisk npm package against a running server, as
// its documentation shows them. It is given the server by __OW_API_HOST and
// __OW_API_KEY, and an archive with a Python action as its argument.
//
// Each step has a name; one that fails is told with what differed, and the
// steps after it are tried all the same. The exit code is 1 if one failed.
'use strict'

const assert = require('node:assert')
const fs = require('node:fs')
const openwhisk = require('openwhisk')

const ow = openwhisk()
const ns = 'guest'
const alarm = '/whisk.system/alarms/alarm'
const source = "function main(args) { console.log('said'); return { hello: args.name || 'nobody' } }"

const same = assert.deepStrictEqual
const notes = entity => Object.fromEntries(entity.annotations.map(a => [a.key, a.value]))
const names = list => list.map(e => e.name).sort()

// without returns an object without members that differ each time.
function without (entity, ...keys) {
  const left = { ...entity }
  for (const key of ['updated', ...keys]) delete left[key]
  return left
}

// refused returns the error that a promise must end in.
async function refused (promise, status) {
  const err = await promise.then(v => { throw new Error(`it was not refused: ${JSON.stringify(v)}`) }, e => e)
  same(err.statusCode, status, err.message)
  return err
}

// recorded waits for the record of an activation: it may follow the answer.
async function recorded (id) {
  for (let tries = 0; ; tries++) {
    try {
      return await ow.activations.get(id)
    } catch (err) {
      if (err.statusCode !== 404 || tries === 500) throw err
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }
}

const steps = {
  'namespaces.list': async () => same(await ow.namespaces.list(), [ns]),

  'actions.create of a text': async () => {
    const made = await ow.actions.create({ name: 'hello', action: source, params: { name: 'world' }, limits: { timeout: 30000 } })
    same(without(made), {
      namespace: ns, name: 'hello', version: '0.0.1', publish: false,
      annotations: [{ key: 'provide-api-key', value: false }, { key: 'exec', value: 'nodejs:20' }],
      parameters: [{ key: 'name', value: 'world' }],
      limits: { timeout: 30000, memory: 256, logs: 10, concurrency: 1 },
      exec: { kind: 'nodejs:20', code: source, binary: false }
    })
  },
  'actions.create of a name that is taken': async () => {
    const err = await refused(ow.actions.create({ name: 'hello', action: source }), 409)
    assert.match(err.message, /Returned HTTP 409 \(Conflict\) --> "resource already exists"/)
    assert.match(err.error.code, /^[0-9a-zA-Z_-]+$/)
  },
  'actions.update': async () => {
    const made = await ow.actions.update({ name: 'hello', action: source, params: { name: 'all' } })
    same([made.version, made.parameters, made.limits.timeout], ['0.0.2', [{ key: 'name', value: 'all' }], 30000])
  },
  'actions.update with a version and no code': async () => {
    const made = await ow.actions.update({ name: 'hello', version: '1.0.0' })
    same([made.version, made.exec.code], ['1.0.0', source])
  },
  'actions.create of no code': async () => same((await ow.actions.create({ name: 'empty', action: '' })).exec.code, ''),
  'actions.create of an archive': async () => {
    const made = await ow.actions.create({ name: 'zipped', action: fs.readFileSync(process.argv[2]), kind: 'python:default' })
    same([made.exec.kind, made.exec.binary], ['python:3', true])
    same(await ow.actions.invoke({ name: 'zipped', blocking: true, result: true, params: { a: 1 } }), { zipped: { a: 1 } })
  },
  'actions.create with a body of its own': async () => {
    const body = { exec: { kind: 'nodejs:default', code: source }, annotations: [{ key: 'web-export', value: true }] }
    const made = await ow.actions.create({ name: 'web', action: body })
    same([made.exec.kind, notes(made)['web-export']], ['nodejs:20', true])
  },
  'actions.create of an unknown kind': async () => {
    const err = await refused(ow.actions.create({ name: 'x', action: source, kind: 'nosuch:1' }), 400)
    assert.match(err.message, /The specified runtime 'nosuch:1' is not supported by this platform/)
  },
  'actions.get': async () => {
    same((await ow.actions.get('hello')).exec.code, source)
    same((await ow.actions.get({ name: 'hello', code: false })).exec, { kind: 'nodejs:20', binary: false })
    assert.match((await refused(ow.actions.get('none'), 404)).message, /"The requested resource does not exist\."/)
  },
  'actions.list': async () => {
    const list = await ow.actions.list()
    same(names(list), ['empty', 'hello', 'web', 'zipped'])
    same(list.map(a => a.namespace), [ns, ns, ns, ns])
    same(list[0].name, 'web', 'the newest is first')
    same(names(await ow.actions.list({ limit: 1, skip: 1 })), ['zipped'])
    same(await ow.actions.list({ count: true }), { actions: 4 })
  },
  'actions.invoke, blocking': async () => {
    const record = await ow.actions.invoke({ name: 'hello', blocking: true, params: { name: 'Ada' } })
    same(without(record.response, 'size'), { result: { hello: 'Ada' }, status: 'success', success: true })
    same([record.name, record.namespace, record.version, record.logs], ['hello', ns, '1.0.0', []])
  },
  'actions.invoke for the result': async () =>
    same(await ow.actions.invoke({ name: `/${ns}/hello`, blocking: true, result: true }), { hello: 'all' }),
  'actions.invoke of a failing action': async () => {
    await ow.actions.create({ name: 'fails', action: "function main() { return { error: 'no luck' } }" })
    const err = await refused(ow.actions.invoke({ name: 'fails', blocking: true }), 502)
    assert.match(err.message, /Returned HTTP 502 \(Bad Gateway\) --> "no luck"/)
    same(err.error.response.status, 'application error')
  },
  'actions.invoke of several': async () => {
    const made = await ow.actions.invoke(['hello', 'zipped'])
    made.forEach(a => assert.match(a.activationId, /^[0-9a-f]{32}$/))
  },
  'the client inside an action': async () => {
    const action = { exec: { kind: 'nodejs:default', code: fs.readFileSync(process.argv[3]).toString('base64') }, annotations: [{ key: 'provide-api-key', value: true }] }
    await ow.actions.create({ name: 'inside', action })
    const result = await ow.actions.invoke({ name: 'inside', blocking: true, result: true, params: { call: 'hello' } })
    same(result, { mine: true, greeting: { hello: 'the action' } })
    await ow.actions.delete('inside')
  },

  'activations.get, logs, result': async () => {
    const { activationId } = await ow.actions.invoke({ name: 'hello', params: { name: 'later' } })
    const record = await recorded(activationId)
    same([record.activationId, record.response.result], [activationId, { hello: 'later' }])
    same(record.end - record.start, record.duration)
    const { logs } = await ow.activations.logs(activationId)
    same(logs.length, 1)
    assert.match(logs[0], /^\S+Z\s+stdout: said$/)
    same(without(await ow.activations.result({ name: activationId }), 'size'), { result: { hello: 'later' }, success: true, status: 'success' })
    await refused(ow.activations.get('0'.repeat(32)), 404)
  },
  'activations.list': async () => {
    const list = await ow.activations.list({ limit: 2, name: 'hello' })
    same(list.map(a => [a.name, a.namespace, a.statusCode]), [['hello', ns, 0], ['hello', ns, 0]])
    for (const { activationId } of await ow.activations.list({ limit: 200 })) {
      same((await ow.activations.get({ activationId })).activationId, activationId)
    }
    assert((await ow.activations.list({ docs: true, limit: 1 }))[0].response, 'with docs there is a response')
    same(await ow.activations.list({ upto: 1000 }), [])
    assert((await ow.activations.list({ count: true, since: 1000 })).activations > 3)
  },

  'packages.create': async () => {
    same(without(await ow.packages.create('tools')), {
      namespace: ns, name: 'tools', version: '0.0.1', publish: false, annotations: [], parameters: [], binding: {}
    })
  },
  'packages.update': async () => {
    const made = await ow.packages.update({ name: 'tools', package: { parameters: [{ key: 'name', value: 'tool' }], publish: true } })
    same([made.version, made.publish, made.parameters], ['0.0.2', true, [{ key: 'name', value: 'tool' }]])
  },
  'packages.get': async () => {
    await ow.actions.create({ name: 'tools/hello', action: source })
    const got = await ow.packages.get({ packageName: 'tools' })
    same([names(got.actions), got.feeds], [['hello'], []])
    same(await ow.actions.invoke({ name: 'tools/hello', blocking: true, result: true }), { hello: 'tool' })
  },
  'packages.create of a binding': async () => {
    const made = await ow.packages.create({
      name: 'bound', package: { binding: { namespace: '_', name: 'tools' }, parameters: [{ key: 'name', value: 'bound' }] }
    })
    same([made.binding, notes(made).binding], [{ namespace: ns, name: 'tools' }, { namespace: ns, name: 'tools' }])
    same(names((await ow.packages.get('bound')).actions), ['hello'])
    same(await ow.actions.invoke({ name: 'bound/hello', blocking: true, result: true }), { hello: 'bound' })
  },
  'packages.list': async () => {
    same(names(await ow.packages.list()), ['bound', 'tools'])
    same(names(await ow.packages.list({ namespace: 'whisk.system', public: true })), ['alarms', 'webhook'])
    same(await ow.packages.list({ count: true }), { packages: 2 })
  },
  'packages.delete': async () => {
    assert.match((await refused(ow.packages.delete('tools'), 409)).message, /Package not empty \(contains 1 entity\)/)
    await ow.packages.delete('bound')
    await ow.actions.delete('tools/hello')
    same((await ow.packages.delete('tools')).name, 'tools')
    same(await ow.packages.list(), [])
  },

  'triggers.create': async () => {
    same(without(await ow.triggers.create({ name: 'happened' })), {
      namespace: ns, name: 'happened', version: '0.0.1', publish: false, annotations: [], parameters: [], limits: {}
    })
  },
  'triggers.update': async () => {
    const trigger = { parameters: [{ key: 'name', value: 'event' }] }
    same((await ow.triggers.update({ name: 'happened', trigger })).version, '0.0.2')
  },
  'triggers.get and list': async () => {
    same((await ow.triggers.get('happened')).parameters, [{ key: 'name', value: 'event' }])
    same(names(await ow.triggers.list()), ['happened'])
    same(await ow.triggers.list({ count: true }), { triggers: 1 })
  },
  'triggers.invoke without a rule': async () =>
    same(Buffer.from(await ow.triggers.invoke({ name: 'happened' }) || '').length, 0),
  'rules.create': async () => {
    same(without(await ow.rules.create({ name: 'react', trigger: 'happened', action: 'hello' })), {
      namespace: ns, name: 'react', version: '0.0.1', publish: false, annotations: [], status: 'active',
      trigger: { path: ns, name: 'happened' }, action: { path: ns, name: 'hello' }
    })
    const err = await refused(ow.rules.create({ name: 'other', trigger: 'none', action: 'hello' }), 400)
    assert.match(err.message, /"trigger \/guest\/none does not exist"/)
  },
  'triggers.invoke with a rule': async () => {
    const { activationId } = await ow.triggers.invoke({ name: 'happened', params: { name: 'fired' } })
    const { response, logs } = await recorded(activationId)
    same([response.result, logs.length], [{ name: 'fired' }, 1])
    const line = JSON.parse(logs[0])
    same([line.success, line.rule, line.action], [true, `${ns}/react`, `${ns}/hello`])
    same((await recorded(line.activationId)).response.result, { hello: 'fired' })
  },
  'rules.disable and enable': async () => {
    await ow.rules.disable({ name: 'react' })
    same((await ow.rules.get('react')).status, 'inactive')
    await ow.rules.enable({ name: 'react' })
    same((await ow.rules.get({ ruleName: 'react' })).status, 'active')
  },
  'rules.update and list': async () => {
    same((await ow.rules.update({ name: 'react', trigger: `/${ns}/happened`, action: `/${ns}/zipped` })).version, '0.0.2')
    same((await ow.rules.list()).map(r => [r.name, r.action.name]), [['react', 'zipped']])
    same(await ow.rules.list({ count: true }), { rules: 1 })
  },
  'rules.delete': async () => {
    same((await ow.rules.delete('react')).name, 'react')
    same(await ow.rules.list(), [])
  },

  'feeds.create': async () => {
    const params = { cron: '0 0 0 1 1 *', trigger_payload: { name: 'new year' } }
    const { response } = await ow.feeds.create({ name: alarm, trigger: 'happened', params })
    same([response.success, response.result], [true, { status: 'success' }])
  },
  'feeds.get': async () => {
    const { response } = await ow.feeds.get({ feedName: alarm, trigger: `/${ns}/happened` })
    const { config, status } = response.result
    same([config.cron, config.payload, config.namespace, config.name], ['0 0 0 1 1 *', { name: 'new year' }, ns, 'happened'])
    same([status.active, status.nextFire.length], [true, 5])
  },
  'feeds.update': async () => {
    await ow.feeds.update({ name: alarm, trigger: 'happened', params: { cron: '0 0 0 1 2 *' } })
    same((await ow.feeds.get({ name: alarm, trigger: 'happened' })).response.result.config.cron, '0 0 0 1 2 *')
  },
  'feeds.create that is refused': async () => {
    const err = await refused(ow.feeds.create({ name: alarm, trigger: 'happened', params: { cron: 'soon' } }), 502)
    assert.match(err.message, /"cron pattern 'soon' is not valid"/)
  },
  'feeds.delete': async () => {
    same((await ow.feeds.delete({ name: alarm, trigger: 'happened' })).response.success, true)
    const err = await refused(ow.feeds.get({ name: alarm, trigger: 'happened' }), 502)
    assert.match(err.message, /could not find trigger \/guest\/happened in the database/)
  },

  'triggers.delete': async () => same((await ow.triggers.delete('happened')).name, 'happened'),
  'actions.delete': async () => {
    same((await ow.actions.delete('hello')).exec.code, source)
    await ow.actions.delete(['empty', 'zipped', 'web', 'fails'])
    same(await ow.actions.list(), [])
  },
  'a wrong key': async () => {
    const stranger = openwhisk({ api_key: `${'0'.repeat(8)}-0000-0000-0000-${'0'.repeat(12)}:${'x'.repeat(64)}` })
    assert.match((await refused(stranger.actions.list(), 401)).message, /"The supplied authentication is invalid"/)
  }
}

async function main () {
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step()
      console.log(`ok ${name}`)
    } catch (err) {
      process.exitCode = 1
      console.log(`failed ${name}: ${err.message}`)
    }
  }
}

main()
