/**
 * Asks pods who they are, in whichever namespace it is started: it is told addresses and ports over IPC.
 * Started by observer.ts.
 */

import { connect } from 'node:net';

/** A question, and the answer to it. */
export interface Question {
  readonly id: number;
  readonly address: string;
  readonly port: number;
}
export interface Answer {
  readonly id: number;
  /** What was said, or why nothing was. */
  readonly said: string;
}

/**
 * How long a connection may take, and how long an answer over it may, in milliseconds. It is the kernel that
 * accepts a connection: this shows that packets get through, even if the machine is too busy to answer.
 */
const [connecting, answering] = [3000, 30_000];

process.on('message', ({ id, address, port }: Question) => {
  const socket = connect({ host: address, port, timeout: connecting });
  let said = '';
  const answer = (text: string) => {
    socket.destroy();
    process.send?.({ id, said: text } satisfies Answer);
  };
  socket
    .setEncoding('utf8')
    .on('data', (text: string) => {
      said += text;
    })
    .on('connect', () => socket.setTimeout(answering, () => answer('nothing over a connection')))
    .on('end', () => answer(said))
    // On a busy machine, the connection may have been made before this process noticed the time.
    .on('timeout', () => setImmediate(() => socket.connecting && answer('nothing in time')))
    .on('error', ({ message }) => answer(message));
});
process.on('disconnect', () => process.exit());
process.send?.('ready');
