/** Foreign servers that answer anything, whatever they are asked. */

import { once } from 'node:events';
import { type AddressInfo, createServer, type ListenOptions, type Socket } from 'node:net';

/** How long the other side may keep silent before the connection is ended, in milliseconds. */
const patience = 3;

/**
 * Does something while a server answers.
 * @param where it listens. @param answer to a request, by its number on the connection, counted from 1.
 * @param isFinal whether the connection ends with the first answer.
 * @returns what the work returns, with the port that it was told.
 */
async function whileAnswering<T>(
  where: ListenOptions,
  answer: (request: number) => Uint8Array,
  isFinal: boolean,
  work: (port: number) => Promise<T>,
): Promise<T> {
  const open = new Set<Socket>();
  const server = createServer((connection) => {
    let requests = 0;
    let timer: NodeJS.Timeout | undefined;
    open.add(connection);
    connection
      .on('error', () => {})
      .on('close', () => {
        clearTimeout(timer);
        open.delete(connection);
      })
      .on('data', () => {
        clearTimeout(timer);
        const text = answer(++requests);
        if (isFinal) connection.end(text);
        else {
          connection.write(text);
          timer = setTimeout(() => connection.end(), patience);
        }
      });
  });
  await once(server.listen(where), 'listening');
  try {
    return await work((server.address() as AddressInfo).port);
  } finally {
    for (const connection of open) connection.destroy();
    server.close();
  }
}

/** An HTTP answer that ends with the connection, so that its length is never wrong. */
export function httpAnswer(body: object | string, status = '200 OK', headers = ''): string {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return `HTTP/1.1 ${status}\r\nconnection: close\r\n${headers}\r\n${text}`;
}

/** Does something while each HTTP request gets the same answer, its status line and headers included. */
export function withHttpServer<T>(answer: Uint8Array, work: (port: number) => Promise<T>): Promise<T> {
  return whileAnswering({ host: '127.0.0.1', port: 0 }, () => answer, true, work);
}

/** Does something while a server at a socket of the file system gives each connection one answer. */
export function withSocketServer<T>(path: string, answer: Uint8Array, work: () => Promise<T>): Promise<T> {
  return whileAnswering({ path }, () => answer, true, work);
}

/** As {@link withSocketServer}, for JSON requests with an "id": where the answer has 1, it gets their id. */
export function withRpcServer<T>(path: string, answer: Uint8Array, work: () => Promise<T>): Promise<T> {
  const text = Buffer.from(answer).toString('latin1');
  const numbered = (id: number) => Buffer.from(text.replaceAll('"id":1,', `"id":${id},`), 'latin1');
  return whileAnswering({ path }, numbered, false, work);
}
