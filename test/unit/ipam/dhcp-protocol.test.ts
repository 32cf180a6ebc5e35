import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { askDaemon } from '../../../ipam/dhcp/protocol.ts';
import { CniError } from '../../../lib/errors.ts';

type Request = Parameters<typeof askDaemon>[1];

/** Asks something that answers every line with the same text. */
async function ask(t: ExecutionContext, answer: string): Promise<unknown> {
  const directory = mkdtempSync(join(tmpdir(), 'dhcp-protocol-'));
  const path = join(directory, 'socket');
  const server = createServer((socket) => socket.once('data', () => socket.end(answer))).listen(path);
  t.teardown(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });
  await once(server, 'listening');
  return askDaemon(path, {} as Request);
}

test("the daemon's result and its errors are passed on", async (t) => {
  t.deepEqual(await ask(t, '{"result":{"a":1}}\n'), { a: 1 });
  const error = await t.throwsAsync(ask(t, '{"error":{"code":11,"msg":"Busy","details":"d"}}\n'), {
    instanceOf: CniError,
  });
  t.deepEqual([error?.code, error?.message, error?.details], [11, 'Busy', 'd']);
});

test('a daemon that ends without an answer is to be asked again', async (t) => {
  for (const answer of ['', '\n\n']) {
    const error = await t.throwsAsync(ask(t, answer), {
      instanceOf: CniError,
      message: /ended before it had/,
    });
    t.is(error?.code, 11);
  }
});

test('another program on the socket is told apart, and that of the reference plugin is named', async (t) => {
  const reference = 'HTTP/1.1 400 Bad Request\r\n\r\n';
  await t.throwsAsync(ask(t, reference), {
    message: /is not this plugin's daemon, but that of the reference/,
  });
  await t.throwsAsync(ask(t, '220 mail.example.org\n'), { message: /is not this plugin's daemon\. Stop it/ });
});
