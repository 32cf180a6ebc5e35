/**
 * The launcher by itself: what it hands over to the loader, whose place a script takes here, and how it
 * fails.
 */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import test, { type ExecutionContext } from 'ava';
import { encodeFrame, Incoming, type Offer } from '../../agent/protocol.ts';
import { readEnvironment } from '../../launcher/launch.ts';
import { launcherFiles } from '../../scripts/build/launcher.ts';
import { tryRun } from '../support/run.ts';

const sources = launcherFiles.filter((file) => file.endsWith('.c'));
const warnings = ['-std=c11', '-Wall', '-Wextra', '-Werror', '-DBUILD="test"', '-DLOADER="loader"'];
/** Where the builds with an agent look for it, in their working directory. */
const agentSocket = 'agent.sock';
/** With time for a machine that does much else. */
const withAgent = [`-DAGENT_SOCKET="${agentSocket}"`, '-DACCEPT_TIMEOUT=60'];
const shipped = ['musl-gcc', '-static', '-Os', '-s'];
const sanitized = ['gcc', '-g', '-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all'];
const builds = {
  'as it is shipped': shipped,
  'under sanitizers': sanitized,
  'with an agent': [...shipped, ...withAgent],
  'with an agent that may be silent for two seconds': [...shipped, ...withAgent, '-DALIVE_TIMEOUT=2'],
} as const;
type Build = keyof typeof builds;

const built = mkdtempSync(join(tmpdir(), 'cni-launcher-'));
test.after.always(() => rmSync(built, { recursive: true }));
test.before('build', () => {
  for (const [build, [compiler, ...options]] of Object.entries(builds))
    execFileSync(compiler!, [...options, ...warnings, '-o', join(built, build), ...sources]);
});

/** Prints its arguments and its environment, each ended by a NUL, as the loader would get them. */
const loaderScript = `#!/bin/sh
printf '%s\\0' "$@"
printf -- '--env--\\0'
cat /proc/self/environ
`;

/** A directory with the launcher under some names, and a loader that tells what it was given. */
function install(t: ExecutionContext, build: Build, name = 'dir', loader = loaderScript): string {
  const root = mkdtempSync(join(tmpdir(), 'cni-launcher-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  const directory = join(root, name);
  mkdirSync(join(directory, '.cni-plugins-test'), { recursive: true });
  copyFileSync(join(built, build), join(directory, 'bridge'));
  for (const other of ['cni', 'dhcp']) linkSync(join(directory, 'bridge'), join(directory, other));
  writeFileSync(join(directory, '.cni-plugins-test/loader'), loader, { mode: 0o755 });
  return directory;
}

async function launch(argv: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const { exit, stdout } = await tryRun(argv, { env });
  const [before = '', after = ''] = stdout.split('--env--\0');
  return { exit, stdout, args: before.split('\0').slice(0, -1), environment: after.split('\0').slice(0, -1) };
}

for (const how of ['as it is shipped', 'under sanitizers'] as const) {
  test(`runs the executable under its own name, through the private loader: ${how}`, async (t) => {
    const directory = install(t, how);
    const hidden = join(directory, '.cni-plugins-test/');
    const { args } = await launch([join(directory, 'bridge')]);
    t.deepEqual(args, [
      ...['--library-path', hidden, '--argv0', 'bridge', `${hidden}cni-plugins`],
      ...['--', join(directory, 'bridge')],
    ]);
    symlinkSync(join(directory, 'bridge'), join(directory, 'elsewhere'));
    t.is((await launch([join(directory, 'elsewhere')])).args[3], 'elsewhere');
  });

  test(`arguments reach only the operators' command and the DHCP daemon: ${how}`, async (t) => {
    const directory = install(t, how);
    const argsOf = async (...argv: string[]) =>
      (await launch([join(directory, argv[0]!), ...argv.slice(1)])).args.slice(7);
    t.deepEqual(await argsOf('bridge', '--env-file=/etc/passwd', '--inspect'), []);
    t.deepEqual(await argsOf('dhcp', '--help'), []);
    t.deepEqual(await argsOf('dhcp', 'daemon', '-broadcast'), ['daemon', '-broadcast']);
    t.deepEqual(await argsOf('cni', 'list', '--json', ''), ['list', '--json', '']);
    const many = Array.from({ length: 2000 }, (_, i) => `${i}`);
    const { exit, stdout } = await launch([join(directory, 'cni'), ...many]);
    t.is(exit, 1);
    t.regex(JSON.parse(stdout).msg, /too many arguments/);
  });

  test(`what Node.js, OpenSSL and the C library obey in the environment is set aside: ${how}`, async (t) => {
    const directory = install(t, how);
    const harmful = {
      NODE_OPTIONS: '--inspect',
      NODE_V8_COVERAGE: '/tmp/x',
      NODE_CHANNEL_FD: 'abc',
      GLIBC_TUNABLES: 'glibc.malloc.check=3',
      OPENSSL_CONF: '/tmp/x',
      SSL_CERT_FILE: '/tmp/x',
      UV_THREADPOOL_SIZE: '1',
    };
    const kept = {
      CNI_COMMAND: 'ADD',
      CNI_ARGS: 'A=B;C=D',
      PATH: '/bin:/usr/bin',
      TRACEPARENT: '00-1',
      EMPTY: '',
    };
    const { environment } = await launch([join(directory, 'bridge')], { ...harmful, ...kept });
    const names = environment.map((variable) => variable.split('=')[0]!);
    t.deepEqual(
      names.filter((name) => name in harmful),
      [],
    );
    const restored = readEnvironment(
      Object.fromEntries(
        environment.map((variable) => [variable.split('=')[0]!, variable.replace(/^[^=]*=/, '')]),
      ),
    );
    t.like(restored, { ...harmful, ...kept });
    for (const [name, value] of Object.entries(kept)) t.true(environment.includes(`${name}=${value}`), name);
  });

  test(`of what is set aside, only what there is no room for is left out: ${how}`, async (t) => {
    const directory = install(t, how);
    const large = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`LD_${i}`, 'x'.repeat(100_000)]));
    const { exit, environment } = await launch([join(directory, 'bridge')], { ...large, CNI_COMMAND: 'ADD' });
    t.is(exit, 0);
    t.true(environment.includes('CNI_COMMAND=ADD'));
    const aside = environment.filter((variable) => variable.startsWith('CNI_FOR_CHILDREN_LD_'));
    t.is(aside.length, 10);
    for (const variable of aside) t.regex(variable, /^CNI_FOR_CHILDREN_LD_\d+=x{100000}$/);
  });

  test(`a missing or broken private directory is reported as a CNI error: ${how}`, async (t) => {
    for (const name of ['dir', 'with "quotes" and \\backslash', 'd'.repeat(200)]) {
      const directory = install(t, how, name);
      rmSync(join(directory, '.cni-plugins-test'), { recursive: true });
      const { exit, stdout } = await launch([join(directory, 'bridge')], { CNI_COMMAND: 'ADD' });
      t.is(exit, 1);
      t.like(JSON.parse(stdout), {
        code: 999,
        msg: 'The private directory of the CNI plugins is missing or incomplete. Install the suite again',
      });
    }
  });
}

test('whatever arguments and environment it gets, it hands over or refuses', async (t) => {
  const directory = install(t, 'under sanitizers');
  let seed = 20_26;
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    return seed % below;
  };
  const word = () => Array.from({ length: random(40) }, () => String.fromCharCode(1 + random(126))).join('');
  for (let i = 0; i < 50; i++) {
    const args = Array.from({ length: random(30) }, word);
    const env = Object.fromEntries(
      Array.from({ length: random(30) }, () => [
        `${['NODE_', 'CNI_', 'LD', 'X'][random(4)]}${random(99)}`,
        word(),
      ]),
    );
    const { exit, args: handed, environment } = await launch([join(directory, 'cni'), ...args], env);
    t.is(exit, 0);
    t.deepEqual(handed.slice(7), args);
    t.deepEqual(
      environment.filter((variable) => variable.startsWith('NODE_')),
      [],
    );
  }
});

/** Installs a launcher that asks an agent of the test's own. @returns the agent, and what starts the launcher. */
async function installWithAgent(
  t: ExecutionContext,
  build: Build = 'with an agent',
): Promise<{ agent: Server; start: [string, ...string[]] }> {
  const installed = install(t, build, 'dir', '#!/bin/sh\necho executable\ncat\n');
  const agent = createServer();
  t.teardown(() => void agent.close());
  await once(agent.listen(join(installed, agentSocket)), 'listening');
  return { agent, start: ['env', `--chdir=${installed}`, join(installed, 'bridge')] };
}

/**
 * Runs the launcher with an agent that takes its call, and hangs up.
 * @param isEnough tells by what has arrived of the input whether it does.
 * @param isSlow whether the runtime writes the last of the input only after that.
 */
async function launchWithAgent(
  t: ExecutionContext,
  isEnough: (arrived: Buffer) => boolean,
  isSlow: boolean,
): Promise<{ exit: unknown; stdout: string }> {
  const { agent, start } = await installWithAgent(t);
  const connected = once(agent, 'connection') as Promise<[Socket]>;
  const [file, ...args] = start;
  const child = spawn(file, args, { env: { CNI_COMMAND: 'ADD', PATH: '/usr/bin:/bin' } });
  const printed = text(child.stdout);
  const exited = once(child, 'exit');
  const [connection] = await connected;
  const hungUp = once(connection, 'close');
  let arrived = Buffer.alloc(0);
  connection
    .on('error', () => {})
    .on('data', (chunk: Buffer) => {
      arrived = Buffer.concat([arrived, chunk]);
      const end = arrived.indexOf('\0\0');
      if (end < 0) return;
      if (isEnough(arrived.subarray(end + 2)))
        connection.end(connection.bytesWritten === 0 ? 'Y' : '', () => connection.destroy());
      else if (connection.bytesWritten === 0) connection.write('Y');
    });
  child.stdin.write('first ');
  if (isSlow) await hungUp;
  child.stdin.end('last');
  const [exit] = await exited;
  return { exit, stdout: await printed };
}

test.serial(
  'the executable does the call that an agent has given up before it had all of the input',
  async (t) => {
    t.deepEqual(await launchWithAgent(t, () => true, true), { exit: 0, stdout: 'executable\nfirst last' });
  },
);

test.serial('a call whose input an agent has is not done twice', async (t) => {
  const isWhole = (input: Buffer) => input.length > 4 && input.readUInt32LE(input.length - 4) === 0;
  const { exit, stdout } = await launchWithAgent(t, isWhole, false);
  t.is(exit, 1);
  const { code, msg, details } = JSON.parse(stdout);
  t.is(code, 11);
  t.regex(msg, /^The CNI agent did not finish this call\. Try again/);
  t.regex(
    details,
    /agent\.sock: The agent ended, or dropped the call, before it answered\. Look for the reason with journalctl /,
  );
});

/** Has an agent of the test's own take each call and its input. @param answer sent then, if any. */
function takeCalls(agent: Server, answer?: string | Buffer): void {
  agent.on('connection', (connection) => {
    const incoming = new Incoming();
    let isOffered = false;
    connection
      .on('error', () => {})
      .on('data', (chunk: Buffer) => {
        incoming.add(chunk);
        if (!isOffered && incoming.takeOffer()) {
          isOffered = true;
          connection.write('Y');
        }
        if (isOffered && incoming.takeInput() !== undefined && answer !== undefined) connection.write(answer);
      });
  });
}

test('an agent that hangs, or breaks the protocol, is reported as what it is', async (t) => {
  const impatient = 'with an agent that may be silent for two seconds';
  for (const [answer, reason, build] of [
    [undefined, /: The agent runs but gives no sign of life\. End it with systemctl kill /, impatient],
    ['?\0\0\0\0\0', /: Protocol error$/, undefined],
  ] as const) {
    const { agent, start } = await installWithAgent(t, build);
    takeCalls(agent, answer);
    const { exit, stdout } = await tryRun(start, { env: { CNI_COMMAND: 'ADD' } });
    t.is(exit, 1);
    t.is(JSON.parse(stdout).code, 11);
    t.regex(JSON.parse(stdout).details, reason);
  }
});

test('the executable does a call with more input than the agent accepts, and gets all of it', async (t) => {
  const { agent, start } = await installWithAgent(t);
  takeCalls(agent);
  const stdin = 'x'.repeat(17 * 2 ** 20);
  const { exit, stdout } = await tryRun(start, { env: { CNI_COMMAND: 'ADD', PATH: '/usr/bin:/bin' }, stdin });
  t.is(exit, 0);
  t.true(stdout === `executable\n${stdin}`);
});

test('the agent is not taken for standard output that the runtime has closed', async (t) => {
  const { agent, start } = await installWithAgent(t);
  const connected = once(agent, 'connection') as Promise<[Socket]>;
  takeCalls(agent, encodeFrame('R', '{"result": 1}'));
  const closed = ['sh', '-c', `exec "$0" "$@" <&- >&- 2>&-`, ...start];
  const ended = tryRun(closed, { env: { CNI_COMMAND: 'ADD', PATH: '/usr/bin:/bin' } });
  const [connection] = await connected;
  const said = text(connection);
  t.is((await ended).exit, 0);
  // After the input, which is empty, comes nothing but the acknowledgement.
  t.regex(await said, /\0\0\0\0\0\0A$/);
});

test('input that cannot be kept for the executable is an I/O error, not half a configuration', async (t) => {
  const { agent, start } = await installWithAgent(t);
  takeCalls(agent);
  // Files, as the one in memory is, get no longer than a few blocks.
  const limited = ['sh', '-c', `trap '' XFSZ; ulimit -f 8; exec "$0" "$@"`, ...start];
  const { exit, stdout } = await tryRun(limited, {
    env: { CNI_COMMAND: 'ADD', PATH: '/usr/bin:/bin' },
    stdin: 'x'.repeat(10_000),
  });
  t.is(exit, 1);
  t.like(JSON.parse(stdout), { code: 5, msg: 'Cannot read the configuration to its end. Try again' });
  t.regex(JSON.parse(stdout).details, /: File too large$/);
});

test('an error that nobody reads is still told by the exit code', async (t) => {
  const directory = install(t, 'as it is shipped');
  rmSync(join(directory, '.cni-plugins-test'), { recursive: true });
  // By a FIFO that has no reader left: what Node.js makes for a child is a socket.
  const script = 'mkfifo "$1"; exec 3<>"$1" 4>"$1" 3>&-; "$0" >&4; echo "$?"';
  const fifo = join(directory, 'fifo');
  const { stdout } = await tryRun(['sh', '-c', script, join(directory, 'bridge'), fifo]);
  t.is(stdout, '1\n');
});

/** What a launcher offers an agent: everything before the verdict; undefined when it runs the executable. */
async function offerOf(t: ExecutionContext, env: NodeJS.ProcessEnv): Promise<Offer | undefined> {
  const { agent, start } = await installWithAgent(t);
  let offer: Offer | undefined;
  agent.on('connection', (connection) => {
    const incoming = new Incoming();
    connection
      .on('error', () => {})
      .on('data', (chunk: Buffer) => {
        incoming.add(chunk);
        offer ??= incoming.takeOffer();
        if (offer) connection.end();
      });
  });
  const { exit, stdout } = await tryRun(start, { env });
  t.is(exit, 0);
  t.regex(stdout, /^executable/);
  return offer;
}

test('an agent is told all of the environment, as it is', async (t) => {
  const env = {
    CNI_COMMAND: 'ADD',
    HTTPS_PROXY: 'http://proxy:3128',
    SSL_CERT_FILE: '/etc/pki/corp.pem',
    EMPTY: '',
  };
  t.like((await offerOf(t, env))?.environment, env);
});

test('an agent is not asked with a larger environment than it is told', async (t) => {
  const offered = async (size: number) =>
    (await offerOf(t, { A: 'x'.repeat(90_000), B: 'x'.repeat(size) }))?.environment.B?.length;
  t.is(await offered(50_000), undefined);
  t.is(await offered(40_000), 40_000);
});
