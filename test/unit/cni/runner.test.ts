import test from 'ava';
import type { Call } from '../../../lib/cni/call.ts';
import { formatError } from '../../../lib/cni/error-object.ts';
import { definePlugin } from '../../../lib/cni/plugin.ts';
import { emptyResult } from '../../../lib/cni/result.ts';
import { runPlugin } from '../../../lib/cni/runner.ts';
import { boolean } from '../../../lib/cni/schema.ts';
import { CniError, ErrorCode } from '../../../lib/errors.ts';

type RecorderCall = Call<{ fail?: boolean; failInternally?: boolean }>;

/** A plugin that records its calls, and what becomes of them. */
function recorder() {
  const log: string[] = [];
  const calls: RecorderCall[] = [];
  const plugin = definePlugin({
    name: 'recorder',
    summary: 'Records.',
    role: 'main',
    config: { fail: boolean(), failInternally: boolean() },
    add(call) {
      calls.push(call);
      call.undo('undo first', () => void log.push('undo first'));
      call.undo('undo second', () => {
        log.push('undo second');
        throw new Error('undo failed');
      });
      if (call.config.fail) throw new Error('first error');
      return emptyResult();
    },
    del: (call) => void calls.push(call),
    gc: (call) => void calls.push(call),
    status(call) {
      if (call.config.fail) throw new Error('not ready');
      if (call.config.failInternally) throw new CniError(ErrorCode.Internal, 'not at all', 'why');
      throw new CniError(ErrorCode.LimitedConnectivity, 'half ready');
    },
  });
  /** @param print takes standard output; by default it is parsed and returned. */
  const run = async (command: string, stdin: object | string, print?: (text: string) => void) => {
    const output: string[] = [];
    const environment = {
      CNI_COMMAND: command,
      CNI_CONTAINERID: 'c1',
      CNI_IFNAME: 'eth0',
      CNI_NETNS: '/run/netns/none-such',
      CNI_PATH: '/none',
      ...environmentOf(stdin),
    };
    const exit = await runPlugin(
      plugin,
      {
        program: process.execPath,
        environment,
        warn: (message) => void log.push(message),
        readStdin: async () => textOf(stdin),
        print: async (text) => (print ? print(text) : void output.push(text)),
      },
      () => undefined,
    );
    const printed = output.length > 0 ? JSON.parse(output.join('')) : undefined;
    return { exit, printed, code: printed?.code as number | undefined, message: printed?.msg as string };
  };
  return { log, calls, run };
}

/** Configurations of these tests may carry the environment of the call under "env". */
function environmentOf(stdin: object | string): object {
  return typeof stdin === 'object' && 'env' in stdin ? (stdin.env as object) : {};
}

function textOf(stdin: object | string): string {
  if (typeof stdin === 'string') return stdin;
  const { env, ...config } = stdin as { env?: object };
  return JSON.stringify({ name: 'n', cniVersion: '1.1.0', ...config });
}

test('a failing ADD is undone in reverse order, even when an undo step fails, and the first error is reported', async (t) => {
  const { log, run } = recorder();
  t.like(await run('ADD', { fail: true }), { exit: 1, code: 999, message: 'first error' });
  t.deepEqual(log, ['undo second', 'While undoing a failed ADD: undo failed', 'undo first']);
  log.length = 0;
  t.like(await run('ADD', {}), { exit: 0, printed: { cniVersion: '1.1.0' } });
  t.deepEqual(log, []);
});

test('a result that its version cannot express undoes ADD', async (t) => {
  const { log, run } = recorder();
  const outcome = await run('ADD', { cniVersion: '0.2.0' });
  t.like(outcome, { exit: 1, code: 999 });
  t.regex(outcome.message, /cannot be written in cniVersion "0\.2\.0"/);
  t.true(log.includes('undo first'));
});

test('a result that nobody reads undoes ADD', async (t) => {
  const { log, run } = recorder();
  const { exit } = await run('ADD', {}, () => {
    throw Object.assign(new Error('broken pipe, write'), { code: 'EPIPE' });
  });
  t.is(exit, 1);
  t.deepEqual(
    log.filter((line) => !line.startsWith('While')),
    ['undo second', 'undo first', 'The result could not be written: broken pipe, write'],
  );
});

test('errors of STATUS have code 50 unless the plugin gives another', async (t) => {
  const { run } = recorder();
  t.like(await run('STATUS', { fail: true }), { exit: 1, code: 50, message: 'not ready' });
  t.like(await run('STATUS', {}), { exit: 1, code: 51, message: 'half ready' });
  const internal = await run('STATUS', { failInternally: true });
  t.like(internal, { exit: 1, code: 50, message: 'not at all', printed: { details: 'why' } });
});

test("the plugin's own namespace is refused before anything is done, and taken for one that is gone by DEL", async (t) => {
  const { calls, log, run } = recorder();
  const env = { CNI_NETNS: '/proc/self/ns/net' };
  for (const command of ['ADD', 'CHECK']) t.is((await run(command, { env })).code, 8);
  t.is(calls.length, 0);
  t.is((await run('DEL', { env })).exit, 0);
  t.deepEqual([calls[0]!.netns, calls[0]!.context.environment.CNI_NETNS], ['', '']);
  t.regex(log[0]!, /"\/proc\/self\/ns\/net" is the namespace that the plugin itself runs in/);
  await run('DEL', { env: { ...env, CNI_NETNS_OVERRIDE: '1' } });
  t.is(calls[1]!.netns, env.CNI_NETNS);
});

test('verbs are tied to versions', async (t) => {
  const { run } = recorder();
  const codeOf = async (command: string, config: object) => (await run(command, config)).code;
  t.is(await codeOf('CHECK', { cniVersion: '0.3.1' }), 1);
  t.is(await codeOf('GC', { cniVersion: '1.0.0' }), 1);
  t.is(await codeOf('STATUS', { cniVersion: '1.0.0' }), 1);
  t.is(await codeOf('ADD', { cniVersion: '9.9.9' }), 1);
  t.is(await codeOf('ADD', { cniVersion: '1.0' }), 1);
  t.is(await codeOf('ADD', { cniVersion: 'new' }), 1);
  t.is(await codeOf('CHECK', { cniVersion: 'new' }), 6);
  t.is(await codeOf('FROB', {}), 4);
  t.is(await codeOf('ADD', { fail: 'yes' }), 999);
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
    [
      [],
      [{ network: 'n', containerId: 'a', ifname: 'eth0' }],
      [{ network: 'n', containerId: 'b', ifname: 'eth1' }],
    ],
  );
});

test('a damaged prevResult stops ADD but not DEL', async (t) => {
  const { calls, run } = recorder();
  t.regex((await run('ADD', { prevResult: { ips: 'x' } })).message, /prevResult\.ips/);
  t.is((await run('DEL', { prevResult: { ips: 'x' } })).exit, 0);
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

test('configurations that no plugin can use', async (t) => {
  const { calls, run } = recorder();
  const codeOf = async (text: string) => (await run('DEL', text)).code;
  t.is(await codeOf('{'), 6);
  t.is(await codeOf('[]'), 6);
  t.is(await codeOf('null'), 6);
  t.is(await codeOf('{"name": 5}'), 6);
  t.is(await codeOf('{}'), 7);
  t.is(await codeOf('{"name": "../x"}'), 7);
  t.is(calls.length, 0);
  await run('DEL', '{"NAME": "n"}');
  t.is(calls[0]!.config.cniVersion, '0.1.0');
});

test('deep nesting is refused by name, and brackets within strings do not count', async (t) => {
  const { run } = recorder();
  const nested = (depth: number) => `{"name": "n", "x": ${'['.repeat(depth)}${']'.repeat(depth)}}`;
  for (const depth of [300, 100_000]) {
    const { code, printed } = await run('DEL', nested(depth));
    t.is(code, 6);
    t.regex(printed.details, /nested more than 200 deep/);
  }
  const objects = `{"name": "n", "x": ${'{"x": '.repeat(300)}1${'}'.repeat(301)}`;
  t.is((await run('DEL', objects)).code, 6);
  // Many objects side by side are not nested deeply.
  t.is((await run('DEL', { x: Array.from({ length: 300 }, () => [{}]) })).exit, 0);
  t.is((await run('DEL', nested(100))).exit, 0);
  t.is((await run('DEL', { x: '\\"[{'.repeat(1000) })).exit, 0);
});

test('plugins that delegate in a circle are stopped with code 7', async (t) => {
  const { run } = recorder();
  t.is((await run('DEL', { env: { CNI_DELEGATION_DEPTH: '8' } })).exit, 0);
  const { code, message } = await run('DEL', { env: { CNI_DELEGATION_DEPTH: '9' } });
  t.is(code, 7);
  t.regex(message, /lead in a circle/);
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
