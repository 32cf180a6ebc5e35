import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { run } from '../../support/run.ts';

test('a process that has got the PID of one that made a connection is not taken for it', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'peer-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const script = `
    import { spawn } from 'node:child_process';
    import { once } from 'node:events';
    import { writeFileSync } from 'node:fs';
    import { createServer } from 'node:net';
    import { isPeerIn, surroundingsOf } from ${JSON.stringify(join(import.meta.dirname, '../../../agent/peer.ts'))};
    const server = createServer({ allowHalfOpen: true }).listen('${directory}/socket');
    const connected = once(server, 'connection');
    const first = spawn('socat', ['UNIX-CONNECT:${directory}/socket', '-'], { stdio: ['pipe', 'ignore', 'inherit'] });
    const [socket] = await connected;
    const isPeer = () => isPeerIn(socket, surroundingsOf('self'));
    const before = isPeer();
    first.kill('SIGKILL');
    await once(first, 'exit');
    const ended = isPeer();
    writeFileSync('/proc/sys/kernel/ns_last_pid', String(first.pid - 1));
    const second = spawn('sleep', ['1000'], { stdio: 'ignore' });
    const reused = isPeer();
    console.log(JSON.stringify([before, ended, second.pid === first.pid, reused]));
    process.exit();`;
  // In a PID namespace where nobody else takes PIDs.
  const alone = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const node = [process.execPath, '--no-warnings', '--experimental-ffi', '--input-type=module', '-e', script];
  t.deepEqual(JSON.parse(await run([...alone, ...node])), [true, false, true, false]);
});
