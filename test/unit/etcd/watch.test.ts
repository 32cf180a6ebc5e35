/** Watches, on what a gateway of etcd may answer. */

import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { EtcdClient, EtcdUnavailableError } from '../../../lib/etcd/client.ts';
import { parseEndpoints } from '../../../lib/etcd/endpoint.ts';
import { CompactedError, type KeyChange, listPrefix, watchPrefix } from '../../../lib/etcd/watch.ts';

const encode = (text: string) => Buffer.from(text).toString('base64');

/** A gateway that answers each request with pieces of text. */
async function gateway(t: ExecutionContext, pieces: readonly string[], status = 200) {
  const requests: { path: string | undefined; body: unknown; headers: IncomingMessage['headers'] }[] = [];
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    requests.push({ path: request.url, body: JSON.parse(body), headers: request.headers });
    response.writeHead(status);
    for (const piece of pieces) {
      response.write(piece);
      await new Promise((resolve) => setImmediate(resolve));
    }
    response.end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const client = new EtcdClient({ endpoints: parseEndpoints('etcd', `127.0.0.1:${port}`, false) });
  return { client, requests };
}

async function changes(client: EtcdClient, from = 7n): Promise<KeyChange[]> {
  const all: KeyChange[] = [];
  for await (const some of watchPrefix(client, '/a/', from, new AbortController().signal)) all.push(...some);
  return all;
}

test('changes are told in order, however they are cut into pieces', async (t) => {
  const put = { kv: { key: encode('/a/1'), value: encode('é'), lease: '123' } };
  const deleted = { type: 'DELETE', kv: { key: encode('/a/1') } };
  const lines = [{ created: true }, { events: [put] }, { events: [deleted] }]
    .map((result) => `${JSON.stringify({ result })}\n`)
    .join('');
  const { client, requests } = await gateway(t, [...lines]);
  t.deepEqual(await changes(client), [
    { kv: { key: '/a/1', value: 'é', lease: '123' }, isDeleted: false },
    { kv: { key: '/a/1', value: '', lease: '0' }, isDeleted: true },
  ]);
  const [{ path, body, headers }] = requests as [(typeof requests)[0]];
  t.is(path, '/v3/watch');
  t.deepEqual(body, {
    create_request: { key: encode('/a/'), range_end: encode('/a0'), start_revision: '7' },
  });
  t.is(headers['grpc-metadata-hasleader'], 'true');
});

test('a revision that is known no longer is told apart', async (t) => {
  const canceled = { result: { canceled: true, compact_revision: '12' } };
  const { client } = await gateway(t, [`${JSON.stringify(canceled)}\n`]);
  await t.throwsAsync(changes(client), { instanceOf: CompactedError, message: /before revision 12/ });
});

test('a watch that is refused, that fails, and that makes no sense', async (t) => {
  for (const [line, message] of [
    [{ result: { canceled: true, cancel_reason: 'permission denied' } }, /permission denied/],
    [{ error: { grpc_code: 14, message: 'etcdserver: no leader' } }, /no leader/],
    [{ result: 7 }, /does not speak as etcd/],
    [{ result: { events: [{}] } }, /does not speak as etcd/],
  ] as const) {
    const { client } = await gateway(t, [`${JSON.stringify(line)}\n`]);
    await t.throwsAsync(changes(client), { message });
  }
  const { client: odd } = await gateway(t, ['<html>\n']);
  await t.throwsAsync(changes(odd), { message: /no JSON/ });
  const { client: away } = await gateway(t, ['{"code": 14, "message": "no leader"}'], 503);
  await t.throwsAsync(changes(away), { instanceOf: EtcdUnavailableError });
  const { client: forbidden } = await gateway(t, ['{"code": 7, "message": "permission denied"}'], 403);
  await t.throwsAsync(changes(forbidden), { message: /etcd refuses a caller.*permission denied/ });
});

test('a refusal that does not end is not waited for, nor read when it is too long', async (t) => {
  const space = ' '.repeat(65_536);
  let isTalkative = false;
  const closed: Promise<unknown>[] = [];
  const server = createServer((request, response) => {
    request.resume();
    response.writeHead(503).write(' ');
    if (isTalkative) response.on('drain', () => response.write(space)).write(space);
  }).on('connection', (connection: Socket) =>
    closed.push(new Promise((resolve) => connection.on('close', resolve))),
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  const detailsWithin = async (longestCallMs: number) => {
    const endpoints = parseEndpoints('etcd', `127.0.0.1:${port}`, false);
    const client = new EtcdClient({ endpoints, longestCallMs });
    return (await t.throwsAsync(changes(client), { instanceOf: EtcdUnavailableError }))?.details ?? '';
  };
  t.regex(await detailsWithin(30_000), /HTTP status 503, and no end of the answer in time/);
  isTalkative = true;
  t.regex(await detailsWithin(60_000), /HTTP status 503, and more than 65536 bytes/);
  await Promise.all(closed);
});

test('a listing without revision makes no sense', async (t) => {
  const { client } = await gateway(t, ['{"header": {"revision": "41"}}']);
  t.deepEqual(await listPrefix(client, '/a/'), { kvs: [], revision: 41n });
  const { client: odd } = await gateway(t, ['{"header": {}}']);
  await t.throwsAsync(listPrefix(odd, '/a/'), { message: /does not speak as etcd/ });
});
