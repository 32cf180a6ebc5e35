import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { startWatchdog } from '../../../agent/watchdog.ts';
import { until } from '../../support/observe.ts';

/** Receives datagrams as systemd does. @returns a function that gives what has come so far. */
async function receive(t: ExecutionContext, type: 'UNIX' | 'ABSTRACT', name: string): Promise<() => string> {
  const receiver = spawn('socat', ['-u', `${type}-RECV:${name}`, '-'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => receiver.kill());
  let received = '';
  receiver.stdout.setEncoding('utf8').on('data', (text: string) => {
    received += text;
  });
  await until('the socket is there', async () => readFileSync('/proc/net/unix', 'utf8').includes(name));
  return () => received;
}

const fail = (message: string): never => {
  throw new Error(message);
};

for (const type of ['UNIX', 'ABSTRACT'] as const)
  test(`signs of life arrive, twice in a period: ${type}`, async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'watchdog-'));
    t.teardown(() => rmSync(directory, { recursive: true }));
    const name = join(directory, 'notify');
    const received = await receive(t, type, name);
    const environment = {
      NOTIFY_SOCKET: type === 'ABSTRACT' ? `@${name}` : name,
      WATCHDOG_USEC: '400000',
      WATCHDOG_PID: `${process.pid}`,
    };
    const start = performance.now();
    const watchdog = startWatchdog(environment, fail)!;
    await until('four have come', async () => received().length >= 4 * 'WATCHDOG=1'.length);
    t.regex(received(), /^(WATCHDOG=1)+$/);
    // The first at once.
    t.true(performance.now() - start >= 3 * 200 - 10);
    watchdog[Symbol.dispose]();
  });

test('whom nobody asks for signs of life sends none', (t) => {
  const all = { NOTIFY_SOCKET: '/none-such', WATCHDOG_USEC: '60000000', WATCHDOG_PID: `${process.pid}` };
  for (const changes of [
    { NOTIFY_SOCKET: undefined },
    { NOTIFY_SOCKET: '' },
    { WATCHDOG_USEC: undefined },
    { WATCHDOG_USEC: '0' },
    { WATCHDOG_USEC: 'often' },
    { WATCHDOG_PID: `${process.pid + 1}` },
  ])
    t.is(startWatchdog({ ...all, ...changes }, fail), undefined, JSON.stringify(changes));
});

test('a sign of life that cannot be sent is a warning', (t) => {
  const warnings: string[] = [];
  const environment = { NOTIFY_SOCKET: '/none-such', WATCHDOG_USEC: '60000000' };
  startWatchdog(environment, (message) => warnings.push(message))![Symbol.dispose]();
  t.deepEqual(warnings, [
    'Cannot tell systemd at "/none-such" that the agent is alive: it does not exist (ENOENT)',
  ]);
});

test('a process that does nothing else is not kept by them', async (t) => {
  const script = `
    import { startWatchdog } from ${JSON.stringify(join(import.meta.dirname, '../../../agent/watchdog.ts'))};
    startWatchdog({ NOTIFY_SOCKET: '/none-such', WATCHDOG_USEC: '60000000' }, () => {});`;
  const child = spawn(process.execPath, ['--no-warnings', '--input-type=module', '-e', script]);
  t.teardown(() => child.kill('SIGKILL'));
  t.deepEqual(await once(child, 'exit'), [0, null]);
});
