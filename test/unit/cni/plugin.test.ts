import test from 'ava';
import type { Invocation } from '../../../lib/cni/invocation.ts';
import { type Call, formatError, invoke, type Plugin, parseNetConf } from '../../../lib/cni/plugin.ts';
import { emptyResult } from '../../../lib/cni/result.ts';
import { boolean, object } from '../../../lib/cni/schema.ts';
import { CniError } from '../../../lib/errors.ts';

const config = object({ fail: boolean() });
type Config = { fail?: boolean };

const invocation: Invocation = {
  command: 'ADD',
  containerId: 'c1',
  ifname: 'eth0',
  netns: '/run/netns/none-such',
  args: '',
  path: [],
  netnsOverride: false,
};

function recorder() {
  const log: string[] = [];
  const calls: Call<Config>[] = [];
  const plugin: Plugin<Config> = {
    name: 'recorder',
    summary: 'Records.',
    config,
    add(call) {
      calls.push(call);
      call.undo(() => void log.push('undo first'));
      call.undo(() => {
        log.push('undo second');
        throw new Error('undo failed');
      });
      if (call.config.fail) throw new Error('first error');
      return emptyResult();
    },
    del: (call) => void calls.push(call),
    gc: (call) => void calls.push(call),
  };
  const run = (command: string, conf: object, netns = invocation.netns) =>
    invoke(
      plugin,
      { ...invocation, command, netns },
      JSON.stringify({ name: 'n', cniVersion: '1.1.0', ...conf }),
      () => undefined,
    );
  return { log, calls, run };
}

const codeOf = async (t: import('ava').ExecutionContext, promise: Promise<unknown>) => {
  const error = await t.throwsAsync(promise);
  return error instanceof CniError ? error.code : 999;
};

test('a failing ADD is taken back in reverse, whatever an undo step says, and the first error is reported', async (t) => {
  const { log, run } = recorder();
  await t.throwsAsync(run('ADD', { fail: true }), { message: 'first error' });
  t.deepEqual(log, ['undo second', 'undo first']);
  log.length = 0;
  await run('ADD', {});
  t.deepEqual(log, []);
});

test("the plugin's own namespace is refused before anything is done", async (t) => {
  const { calls, run } = recorder();
  for (const command of ['ADD', 'DEL', 'CHECK'])
    t.is(await codeOf(t, run(command, {}, '/proc/self/ns/net')), 8);
  t.is(calls.length, 0);
});

test('verbs are tied to versions', async (t) => {
  const { run } = recorder();
  t.is(await codeOf(t, run('CHECK', { cniVersion: '0.3.1' })), 1);
  t.is(await codeOf(t, run('GC', { cniVersion: '1.0.0' })), 1);
  t.is(await codeOf(t, run('STATUS', { cniVersion: '1.0.0' })), 1);
  t.is(await codeOf(t, run('ADD', { cniVersion: '9.9.9' })), 1);
  t.is(await codeOf(t, run('ADD', { cniVersion: '1.0' })), 1);
  t.is(await codeOf(t, run('ADD', { cniVersion: 'new' })), 1);
  t.is(await codeOf(t, run('CHECK', { cniVersion: 'new' })), 6);
  t.is(await codeOf(t, run('FROB', {})), 4);
  t.is(await codeOf(t, run('ADD', { fail: 'yes' })), 999);
});

test('GC collects only when the runtime says what is valid', async (t) => {
  const { calls, run } = recorder();
  await run('GC', {});
  await run('GC', { 'cni.dev/valid-attachments': null });
  t.is(calls.length, 0);
  await run('GC', { 'cni.dev/valid-attachments': [] });
  await run('GC', { 'cni.dev/attachments': [{ containerID: 'a', ifname: 'eth0' }] });
  await run('GC', {
    'cni.dev/attachments': [],
    'cni.dev/valid-attachments': [{ containerID: 'b', ifname: 'eth1' }],
  });
  t.deepEqual(
    calls.map((call) => call.validAttachments),
    [[], [{ containerId: 'a', ifname: 'eth0' }], [{ containerId: 'b', ifname: 'eth1' }]],
  );
});

test('a damaged prevResult stops ADD but not DEL', async (t) => {
  const { calls, run } = recorder();
  await t.throwsAsync(run('ADD', { prevResult: { ips: 'x' } }), { message: /prevResult\.ips/ });
  await run('DEL', { prevResult: { ips: 'x' } });
  t.is(calls[0]!.prevResult, undefined);
});

test('prevResult is read in its own version, else in that of the configuration', async (t) => {
  const { calls, run } = recorder();
  await run('DEL', { prevResult: { cniVersion: '0.2.0', ip4: { ip: '10.0.0.2/24' } } });
  await run('DEL', { cniVersion: '0.4.0', prevResult: { ips: [{ version: '4', address: '10.0.0.3/24' }] } });
  t.deepEqual(
    calls.map((call) => call.prevResult?.ips[0]?.address.toString()),
    ['10.0.0.2/24', '10.0.0.3/24'],
  );
});

test('configurations that no plugin can use', (t) => {
  const code = (text: string) => t.throws(() => parseNetConf(text), { instanceOf: CniError })?.code;
  t.is(code('{'), 6);
  t.is(code('[]'), 6);
  t.is(code('null'), 6);
  t.is(code('{"name": 5}'), 6);
  t.is(code('{}'), 7);
  t.is(code('{"name": "../x"}'), 7);
  t.is(parseNetConf('{"NAME": "n"}').cniVersion, '0.1.0');
});

test('errors are printed as the specification has them', (t) => {
  t.deepEqual(JSON.parse(formatError(new CniError(11, 'Busy', 'xtables'), '1.0.0')), {
    cniVersion: '1.0.0',
    code: 11,
    msg: 'Busy',
    details: 'xtables',
  });
  t.deepEqual(JSON.parse(formatError(new Error('x'))), { code: 999, msg: 'x' });
});
