import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import test from 'ava';
import { exchange, keepConnections, openAnswer } from '../../lib/http.ts';

test('an answer that begins another protocol is refused', async (t) => {
  const answer = 'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n';
  const server = createServer((connection) => {
    connection.on('error', () => {}).on('data', () => connection.end(answer));
  });
  await once(server.listen({ host: '127.0.0.1', port: 0 }), 'listening');
  t.teardown(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const endpoint = { isSecure: false, host: '127.0.0.1', port, origin: `http://127.0.0.1:${port}` };
  const request = { method: 'GET', path: '/', timeoutMs: 60_000, connections: keepConnections() };
  const message = /another protocol/;
  await t.throwsAsync(exchange(endpoint, request), { message });
  await t.throwsAsync(openAnswer(endpoint, request, new AbortController().signal), { message });
});
