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

/** How long a pod may take to answer, in milliseconds. */
const patience = 3000;

process.on('message', ({ id, address, port }: Question) => {
  const socket = connect({ host: address, port, timeout: patience });
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
    .on('end', () => answer(said))
    .on('timeout', () => answer('nothing in time'))
    .on('error', ({ message }) => answer(message));
});
process.on('disconnect', () => process.exit());
process.send?.('ready');
