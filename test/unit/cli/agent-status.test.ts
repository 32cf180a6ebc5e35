import { createServer } from 'node:net';
import { join } from 'node:path';
import test from 'ava';
import { frameHeaderSize } from '../../../agent/protocol.ts';
import { askStatus } from '../../../cli/agent-status.ts';
import { directory } from '../../support/command.ts';

const status = {
  ...{ build: 'b', pid: 1, priority: 0, uptimeSeconds: 1, running: 0, queued: 0, refused: 0, memoryMiB: 1 },
  calls: [{ plugin: 'bridge', verb: 'ADD', calls: 1, failures: 0, codes: { 0: 1 }, p50Ms: 1, p99Ms: 1 }],
};

test('what listens is taken for an agent only if it answers as one', async (t) => {
  let answer = '';
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket
      .resume()
      .on('end', () => socket.end(Buffer.concat([Buffer.alloc(frameHeaderSize), Buffer.from(answer)])));
  });
  const path = join(directory(t), 'socket');
  await new Promise<void>((resolve) => void server.listen(path, resolve));
  t.teardown(() => void server.close());
  answer = JSON.stringify(status);
  t.deepEqual(await askStatus(path), status);
  for (const other of [
    '',
    'null',
    '{}',
    JSON.stringify({ ...status, pid: '1' }),
    JSON.stringify({ ...status, calls: [{ plugin: 'bridge' }] }),
    JSON.stringify({ ...status, overlay: { subnets: 'none', nodes: 1 } }),
  ]) {
    answer = other;
    await t.throwsAsync(askStatus(path), { message: /What listens on ".*" is not an agent/ }, other);
  }
});
