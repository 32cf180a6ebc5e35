/**
 * A server that says who it is and whom it sees, and the client to go with it: run inside namespaces by
 * observe.ts.
 *
 *     node echo.ts serve tcp|udp ADDRESS PORT LABEL     prints a line when it listens
 *     node echo.ts ask tcp|udp ADDRESS PORT             prints the answer, or fails after two seconds
 *     node echo.ts ask-all ADDRESS PORT …               asks all at once over TCP, and prints a line for each: the
 *                                                       answer, or nothing if none has come when all are silent
 */

import { createSocket, type RemoteInfo } from 'node:dgram';
import { connect, createServer } from 'node:net';

const [mode, protocol, address = '', portText, label = ''] = process.argv.slice(2);
const port = Number(portText);

if (mode === 'serve') serve();
else if (mode === 'ask') ask();
else askAll(process.argv.slice(3));

function serve(): void {
  const answer = (peer: string, said: string) =>
    JSON.stringify({ label, peer: peer.replace('::ffff:', ''), said });
  const ready = () => console.log('ready');
  if (protocol === 'tcp') {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', (said) => socket.end(answer(socket.remoteAddress ?? '', said.toString())));
    });
    server.listen(port, address, ready);
  } else {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
    socket.on('message', (said: Buffer, peer: RemoteInfo) =>
      socket.send(answer(peer.address, said.toString()), peer.port, peer.address),
    );
    socket.bind(port, address, ready);
  }
  // The test's end closes the pipe.
  process.stdin.resume().on('end', () => process.exit());
}

function ask(): void {
  const finish = (text: string) => {
    console.log(text);
    process.exit(0);
  };
  whenSilent(4, () => process.exit(1));
  if (protocol === 'tcp') converse(address, port).then(finish, () => process.exit(1));
  else {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
    socket.on('message', (text: Buffer) => finish(text.toString()));
    socket.on('error', () => process.exit(1));
    socket.send('hello', port, address);
  }
}

async function askAll(targets: readonly string[]): Promise<void> {
  const answers: string[] = [];
  const finish = () => {
    console.log(answers.join('\n'));
    process.exit();
  };
  const heard = whenSilent(10, finish);
  const asked: Promise<void>[] = [];
  for (let i = 0; i < targets.length; i += 2) {
    const place = answers.push('') - 1;
    const keep = (text: string) => {
      answers[place] = text;
      heard();
    };
    asked.push(converse(targets[i]!, Number(targets[i + 1])).then(keep, () => {}));
  }
  await Promise.all(asked);
  finish();
}

/**
 * Acts once nothing has been heard for more than a number of half seconds. They are counted, not measured: on
 * a busy machine an answer may be there long before this process gets to read it, and timers come first.
 * @returns a function to call whenever something is heard.
 */
function whenSilent(most: number, act: () => void): () => void {
  let ticks = 0;
  setInterval(() => ++ticks > most && act(), 500);
  return () => {
    ticks = 0;
  };
}

/** Says hello over TCP. @returns all of the answer. */
function converse(host: string, port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port });
    let text = '';
    socket.on('data', (part) => {
      text += part;
    });
    socket.on('end', () => resolve(text));
    socket.on('error', reject);
    socket.write('hello');
  });
}
