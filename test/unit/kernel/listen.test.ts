import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { listenOn } from '../../../lib/kernel/listen.ts';

const inUse = 'Somebody else listens';

function makeDirectory(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'listen-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** A server that says who it is. */
function serverThatSays(t: ExecutionContext, text: string): Server {
  // A client that only checks whether somebody listens is gone before it has the answer.
  const server = createServer((socket) => socket.on('error', () => {}).end(text));
  t.teardown(() => server.close());
  return server;
}

async function answerOf(path: string): Promise<string> {
  let text = '';
  for await (const chunk of connect(path)) text += chunk;
  return text;
}

test('a socket is for root alone, and a second server is refused until the first is closed', async (t) => {
  const path = join(makeDirectory(t), 'new/socket');
  const [first, second] = ['first', 'second'].map((text) => serverThatSays(t, text)) as [Server, Server];
  await listenOn(first, path, {}, inUse);
  t.is(statSync(path).mode & 0o777, 0o600);
  await t.throwsAsync(listenOn(second, path, {}, inUse), { message: inUse });
  t.is(await answerOf(path), 'first');
  first.close();
  await once(first, 'close');
  t.false(existsSync(path));
  await listenOn(second, path, {}, inUse);
  t.is(await answerOf(path), 'second');
});

test('a server that holds no lock, as systemd starts it, is not pushed aside', async (t) => {
  const path = join(makeDirectory(t), 'socket');
  const passed = serverThatSays(t, 'passed').listen(path);
  await once(passed, 'listening');
  await t.throwsAsync(listenOn(serverThatSays(t, 'own'), path, {}, inUse), { message: inUse });
  t.is(await answerOf(path), 'passed');
});

test('a server that ends leaves a socket alone that has taken the place of its own', async (t) => {
  const path = join(makeDirectory(t), 'socket');
  const first = serverThatSays(t, 'first');
  await listenOn(first, path, {}, inUse);
  // As systemd does when a socket unit starts.
  rmSync(path);
  const other = serverThatSays(t, 'other').listen(path);
  await once(other, 'listening');
  first.close();
  await once(first, 'close');
  t.is(await answerOf(path), 'other');
});

test('a path that no socket can have is an error', async (t) => {
  const path = join(makeDirectory(t), 'x'.repeat(107));
  await t.throwsAsync(listenOn(serverThatSays(t, 'own'), path, {}, inUse), {
    message: /x" is too long for a socket\. Give a path of at most 107 bytes$/,
  });
});

test('what is not a socket is left alone', async (t) => {
  const path = join(makeDirectory(t), 'socket');
  writeFileSync(path, 'text');
  await t.throwsAsync(listenOn(serverThatSays(t, 'own'), path, {}, inUse), { message: /is not a socket/ });
  t.is(statSync(path).size, 4);
});

test('a socket that systemd passes is the one that is listened on', async (t) => {
  const directory = makeDirectory(t);
  const path = join(directory, 'socket');
  const socket = serverThatSays(t, 'the one that made it').listen(path);
  await once(socket, 'listening');
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const script = `
    import { createServer } from 'node:net';
    import { listenOn } from ${JSON.stringify(join(import.meta.dirname, '../../../lib/kernel/listen.ts'))};
    const server = createServer((socket) => socket.on('error', () => {}).end('child'));
    await listenOn(server, ${JSON.stringify(join(directory, 'another'))}, process.env, '');
    console.log('ready');`;
  const shell = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" --no-warnings --input-type=module -e "$1"';
  const child = spawn('sh', ['-c', shell, process.execPath, script], {
    stdio: ['ignore', 'pipe', 'inherit', fd],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const [said] = (await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')])) as [unknown];
  t.is(String(said), 'ready\n');
  // Both accept, until this process closes its server, which removes what has the path.
  renameSync(path, `${path}.passed`);
  socket.close();
  t.is(await answerOf(`${path}.passed`), 'child');
});
