/**
 * A lasting TCP connection, answered line by line: run inside namespaces by connection.ts.
 *
 *     node talk.ts serve PORT           prints a line when it listens; answers each line with whom it sees
 *     node talk.ts connect ADDRESS PORT prints a line when connected; sends each line it reads, prints answers
 */

import { connect, createServer } from 'node:net';

const [mode, ...args] = process.argv.slice(2);

if (mode === 'serve') {
  const server = createServer((socket) => {
    const peer = (socket.remoteAddress ?? '').replace('::ffff:', '');
    socket.on('error', () => {}).on('data', (said) => socket.write(`${peer} ${said}`));
  });
  server.listen(Number(args[0]), '::', () => console.log('ready'));
  process.stdin.resume().on('end', () => process.exit());
} else {
  const [host = '', port] = args;
  const socket = connect({ host, port: Number(port) }, () => console.log('ready'));
  socket.pipe(process.stdout);
  process.stdin.pipe(socket);
}
