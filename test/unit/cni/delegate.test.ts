import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { Call, type CallContext } from '../../../lib/cni/call.ts';
import { delegate, findPlugin, ipamAdd } from '../../../lib/cni/delegate.ts';
import { runExecutable } from '../../../lib/cni/exec.ts';
import { emptyResult } from '../../../lib/cni/result.ts';
import { CniError } from '../../../lib/errors.ts';

/** A directory with an executable shell script for each name. */
function pluginDir(t: ExecutionContext, scripts: Record<string, string>): string {
  const dir = mkdtempSync(join(tmpdir(), 'cni-delegate-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  for (const [name, body] of Object.entries(scripts))
    writeFileSync(join(dir, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  return dir;
}

function callWith(path: string[], signal?: AbortSignal, warn: (message: string) => void = () => {}): Call {
  const invocation = {
    command: 'ADD',
    containerId: 'c',
    ifname: 'eth0',
    netns: '/x',
    args: '',
    path,
    netnsOverride: false,
  };
  const context = {
    program: process.execPath,
    invocation,
    stdin: '{"name":"n"}',
    environment: process.env,
    warn,
    signal,
    depth: 2,
    runEmbedded: () => undefined,
    interfaceGoes: async () => 'after' as const,
  };
  return new Call(context, {
    config: { cniVersion: '1.0.0', name: 'n', type: 'bridge', ipam: { type: 'fake' } },
    prevResult: undefined,
    validAttachments: [],
  });
}

test('passes the configuration through, changes only CNI_COMMAND, and reads the result', async (t) => {
  const dir = pluginDir(t, {
    fake: `test "$(cat)" = '{"name":"n"}' && test "$CNI_COMMAND" = ADD && test "$CNI_DELEGATION_DEPTH" = 3 && echo '{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.9/24"}}'`,
  });
  const result = await delegate(callWith([dir]), 'fake');
  t.is(result?.ips[0]?.address.toString(), '10.0.0.9/24');
});

test('a failed delegate that prints no error of the specification is said to have failed', async (t) => {
  for (const text of ['{"msg":"Busy"}', '{"code":"11","msg":"Busy"}', 'null', '7', '[]', 'text']) {
    const dir = pluginDir(t, { fake: `echo '${text}'; exit 3` });
    const error = await t.throwsAsync(delegate(callWith([dir]), 'fake'), { instanceOf: CniError });
    t.regex(error!.message, /failed with exit code 3 and printed no CNI error/, text);
    t.is(error!.code, 999);
  }
});

test('a delegate that somebody else kills is told from one that was stopped', async (t) => {
  const dir = pluginDir(t, { fake: 'kill -9 $$' });
  for (const signal of [undefined, new AbortController().signal])
    await t.throwsAsync(delegate(callWith([dir], signal), 'fake'), {
      instanceOf: CniError,
      message: /was killed by SIGKILL before it answered/,
    });
});

test("a delegate's own error comes back whole", async (t) => {
  const dir = pluginDir(t, { fake: `echo '{"code":11,"msg":"Busy","details":"d"}'; exit 1` });
  const error = await t.throwsAsync(delegate(callWith([dir]), 'fake'), { instanceOf: CniError });
  t.deepEqual([error?.code, error?.message, error?.details], [11, 'Busy', 'd']);
});

test('a delegate that dies without a word is named with how it died', async (t) => {
  const dir = pluginDir(t, {
    silent: 'exit 3',
    killed: 'kill -9 $$',
    babbles: 'echo oops; exit 1',
    lies: 'echo oops',
  });
  const message = async (name: string) => (await t.throwsAsync(delegate(callWith([dir]), name)))?.message;
  t.regex((await message('silent'))!, /exit code 3 and printed nothing/);
  t.regex((await message('killed'))!, /killed by SIGKILL/);
  t.regex((await message('babbles'))!, /printed no CNI error/);
  t.regex((await message('lies'))!, /not JSON/);
});

test('a delegate that cannot be started is said to lack what it lacks', async (t) => {
  const dir = pluginDir(t, { fake: 'exit 0' });
  const file = join(dir, 'fake');
  const long = { CNI_ARGS: 'x'.repeat(200_000) };
  await t.throwsAsync(runExecutable(file, '', long), {
    message: /environment is too long\. Shorten CNI_ARGS/,
  });
  chmodSync(file, 0o644);
  await t.throwsAsync(runExecutable(file, '', {}), { message: /Make it an executable file/ });
  const script = `
    import { openSync } from 'node:fs';
    import { runExecutable } from '${join(import.meta.dirname, '../../../lib/cni/exec.ts')}';
    try { for (;;) openSync('/dev/null'); } catch {}
    await runExecutable('/bin/true', '', {}).catch(({ message }) => console.log(message));`;
  const limited = ['-c', 'ulimit -n 64; exec "$@"', 'sh', process.execPath, '--no-warnings'];
  const said = execFileSync('sh', [...limited, '--input-type=module', '--eval', script], {
    encoding: 'utf8',
  });
  t.is(said, 'Cannot run plugin "/bin/true". The process has too many open files. Raise its limit\n');
});

test('what a delegate says on standard error is passed on by lines, and its end is kept', async (t) => {
  const dir = pluginDir(t, {
    panics: `printf 'one\ntw' >&2; sleep 0.1; printf 'o\nthree' >&2; exit 2`,
    babbles: 'seq 100000 >&2; exit 2',
    refuses: `echo reason >&2; echo '{"code":7,"msg":"No"}'; exit 1`,
    dies: 'echo oops >&2; kill -9 $$',
  });
  const run = async (name: string) => {
    const said: string[] = [];
    const options = { warn: (text: string) => void said.push(text) };
    const error = await t.throwsAsync(runExecutable(join(dir, name), '', process.env, options), {
      instanceOf: CniError,
    });
    return { said: said.join('\n'), details: error!.details ?? '' };
  };
  t.deepEqual(await run('panics'), { said: 'one\ntwo\nthree', details: 'one\ntwo\nthree' });
  const { said, details } = await run('babbles');
  t.is(said.split('\n').length, 100_000);
  t.true(details.length <= 4096 && details.endsWith('\n99999\n100000'));
  t.deepEqual(await run('refuses'), { said: 'reason', details: '' });
  t.deepEqual(await run('dies'), { said: 'oops', details: 'oops' });
});

test('a line that does not end is passed on in pieces', async (t) => {
  const dir = pluginDir(t, { endless: `head -c 1000000 /dev/zero | tr '\\0' x >&2` });
  const said: string[] = [];
  await runExecutable(join(dir, 'endless'), '', process.env, { warn: (text) => void said.push(text) });
  t.is(said.join('').length, 1_000_000);
  t.true(Math.max(...said.map(({ length }) => length)) < 200_000);
});

test('a delegate that prints more than any result has is killed, and asked to release', async (t) => {
  const dir = pluginDir(t, {
    fake: `echo $CNI_COMMAND >>"$0.log"; [ $CNI_COMMAND = DEL ] || { head -c 17000000 /dev/zero 2>/dev/null; exec sleep 60; }`,
  });
  for (const signal of [undefined, new AbortController().signal]) {
    rmSync(join(dir, 'fake.log'), { force: true });
    const call = callWith([dir], signal);
    const start = performance.now();
    await t.throwsAsync(delegate(call, 'fake'), { instanceOf: CniError, message: /more than 16 MiB/ });
    t.true(performance.now() - start < 30_000, 'it is not waited for');
    await call.rollBack();
    t.is(readFileSync(join(dir, 'fake.log'), 'utf8'), 'ADD\nDEL\n');
  }
});

test('the first regular file on CNI_PATH is taken; names that are paths are refused', (t) => {
  const [a, b] = [pluginDir(t, { one: '' }), pluginDir(t, { one: '', two: '' })];
  t.is(findPlugin('one', ['/none', a, b]), `${a}/one`);
  t.is(findPlugin('two', [a, b]), `${b}/two`);
  // An earlier directory is passed over also where there is no telling what is in it.
  symlinkSync('two', join(a, 'two'));
  t.is(findPlugin('two', ['/'.repeat(5000), a, b]), `${b}/two`);
  for (const type of ['', '..', '../one', '/bin/sh', 'a\0b'])
    t.throws(() => findPlugin(type, [a]), { message: /is not the name of an executable/ });
  t.throws(() => findPlugin('three', [a, b]), { message: /not in CNI_PATH\. Install it/ });
});

test('an IPAM plugin that succeeds is asked to release when ADD fails later on, or when it gave no address', async (t) => {
  const dir = pluginDir(t, {
    fake: `cat >/dev/null; if [ $CNI_COMMAND = ADD ]; then echo '{}'; else echo $CNI_COMMAND >>"$0.log"; fi`,
  });
  const call = callWith([dir]);
  await t.throwsAsync(ipamAdd(call), { message: /returned no IP address/ });
  await call.rollBack();
  t.is(readFileSync(join(dir, 'fake.log'), 'utf8'), 'DEL\n');
});

test('an IPAM plugin that fails is not asked to release: a living attachment may hold the address', async (t) => {
  const dir = pluginDir(t, {
    fake: `cat >/dev/null; echo $CNI_COMMAND >>"$0.log"; echo '{"code":999,"msg":"duplicate allocation"}'; exit 1`,
  });
  const call = callWith([dir]);
  await t.throwsAsync(ipamAdd(call), { message: 'duplicate allocation' });
  await call.rollBack();
  t.is(readFileSync(join(dir, 'fake.log'), 'utf8'), 'ADD\n');
});

test('an IPAM plugin whose answer cannot be read is asked to release', async (t) => {
  for (const answer of ['garbage', '{"cniVersion":"1.0.0","ips":[{"addr', '{"ips":[{"address":7}]}']) {
    const dir = pluginDir(t, {
      fake: `cat >/dev/null; echo $CNI_COMMAND >>"$0.log"; [ $CNI_COMMAND = DEL ] || echo '${answer}'`,
    });
    const call = callWith([dir]);
    await t.throwsAsync(ipamAdd(call), undefined, answer);
    await call.rollBack();
    t.is(readFileSync(join(dir, 'fake.log'), 'utf8'), 'ADD\nDEL\n', answer);
  }
});

test('a delegate within this process is asked to release as well; another program of the same size is run', async (t) => {
  const dir = pluginDir(t, { program: 'exit 3', fake: 'exit 3', other: 'exit 4' });
  const verbs: string[] = [];
  const base = callWith([dir]);
  const runEmbedded = (_type: string, { invocation }: CallContext) => {
    verbs.push(invocation.command);
    return Promise.resolve(invocation.command === 'ADD' ? emptyResult() : undefined);
  };
  const context = { ...base.context, program: join(dir, 'program'), runEmbedded };
  const call = new Call(context, { config: base.config, prevResult: undefined, validAttachments: [] });
  t.deepEqual(await delegate(call, 'fake'), emptyResult());
  await call.rollBack();
  t.deepEqual(verbs, ['ADD', 'DEL']);
  await t.throwsAsync(delegate(call, 'other'), { message: /exit code 4/ });
  t.deepEqual(verbs, ['ADD', 'DEL']);
});

/** True while a process has not ended. */
function isRunning(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
}

test('once the runtime has given up, an IPAM plugin is ended with its children, and asked to release', async (t) => {
  const dir = pluginDir(t, {
    obedient: 'sleep 600 & echo $! >"$0.pid"; wait',
    orderly: `trap 'exit 3' TERM; sleep 600 & echo $! >"$0.pid"; wait`,
    deaf: `trap '' TERM; sleep 600 & echo $! >"$0.pid"; sleep 600`,
    fake: `echo $CNI_COMMAND >>"$0.log"; [ $CNI_COMMAND = DEL ] || . $0.body`,
  });
  for (const body of ['obedient', 'orderly', 'deaf']) {
    symlinkSync(join(dir, body), join(dir, 'fake.body'));
    const giveUp = new AbortController();
    const call = callWith([dir], giveUp.signal);
    const adding = t.throwsAsync(ipamAdd(call), { message: /had not ended when the runtime gave up/ });
    const pidFile = join(dir, 'fake.pid');
    while (!existsSync(pidFile) || readFileSync(pidFile, 'utf8') === '') await sleep(10);
    const child = Number(readFileSync(pidFile, 'utf8'));
    t.true(isRunning(child), body);
    giveUp.abort();
    await adding;
    // It was sent the signal, but need not have ended before its parent.
    for (let tries = 0; isRunning(child) && tries < 500; tries++) await sleep(10);
    t.false(isRunning(child), body);
    await call.rollBack();
    t.is(readFileSync(join(dir, 'fake.log'), 'utf8'), 'ADD\nDEL\n', body);
    for (const suffix of ['body', 'pid', 'log']) rmSync(join(dir, `fake.${suffix}`));
  }
});

test('what is taken back later is left as it is if what comes before it cannot be taken back', async (t) => {
  for (const fails of [false, true]) {
    const warnings: string[] = [];
    const dir = pluginDir(t, {
      fake: `echo $CNI_COMMAND >> "$0.log"; test $CNI_COMMAND = DEL || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.9/24"}]}'`,
    });
    const call = callWith([dir], undefined, (message) => void warnings.push(message));
    let hasFirst = true;
    call.undo('remove what was there before', () => {
      hasFirst = false;
    });
    call.undo('delete interface "eth0"', () => {
      if (fails) throw new Error('busy');
    });
    await ipamAdd(call);
    call.postponeUndo(1, 1);
    await call.rollBack();
    t.is(readFileSync(join(dir, 'fake.log'), 'utf8'), fails ? 'ADD\n' : 'ADD\nDEL\n');
    t.false(hasFirst);
    t.deepEqual(
      warnings,
      fails
        ? [
            'While undoing a failed ADD: busy',
            'While undoing a failed ADD: It did not run DEL of "fake", as it could not delete interface "eth0"',
          ]
        : [],
    );
  }
});
