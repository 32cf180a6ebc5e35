/**
 * A server that says who it is and whom it sees, and the client to go with it: run inside namespaces by
 * observe.ts.
 *
 *     node echo.ts serve tcp|udp ADDRESS PORT LABEL     prints a line when it listens
 *     node echo.ts ask tcp|udp ADDRESS PORT             prints the answer, or fails after two seconds
 */

import { createSocket, type RemoteInfo } from 'node:dgram';
import { connect, createServer } from 'node:net';

const [mode, protocol, address = '', portText, label = ''] = process.argv.slice(2);
const port = Number(portText);
const patience = 2000;

if (mode === 'serve') serve();
else ask();

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
  setTimeout(() => process.exit(1), patience);
  if (protocol === 'tcp') {
    const socket = connect({ host: address, port });
    let text = '';
    socket.on('data', (part) => {
      text += part;
    });
    socket.on('end', () => finish(text));
    socket.on('error', () => process.exit(1));
    socket.write('hello');
  } else {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
    socket.on('message', (text: Buffer) => finish(text.toString()));
    socket.on('error', () => process.exit(1));
    socket.send('hello', port, address);
  }
}
