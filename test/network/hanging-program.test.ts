/** A program of the host that hangs: the call that waits for it fails in time, and those behind it go on. */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { Attachment, type Conflist } from '../support/chain.ts';
import { makeHost } from '../support/host.ts';
import { snapshot, until } from '../support/observe.ts';

const network: Conflist = {
  cniVersion: '1.1.0',
  name: 'net',
  plugins: [
    {
      type: 'ptp',
      ipMasq: true,
      ipMasqBackend: 'iptables',
      ipam: { type: 'host-local', subnet: '10.34.0.0/24' },
    },
  ],
};

test('an iptables-restore that hangs fails one ADD, and the rules of others are set all the same', async (t) => {
  const host = await makeHost(t);
  const script = `#!/bin/sh
    mkdir /run/hung 2>/dev/null && { echo $$ > /run/hung/pid; exec sleep 300; }
    exec /usr/sbin/\${0##*/} "$@"\n`;
  await host.run(['mkdir', '/run/hanging']);
  writeFileSync(host.file('/run/hanging/iptables-restore'), script, { mode: 0o755 });
  const env = { PATH: `/run/hanging:${process.env.PATH}` };
  const one = async () => new Attachment(host, await host.addPod(), network, { env, timeout: 120_000 });
  const [first, second] = [await one(), await one()];
  const start = performance.now();
  const hanging = first.tryAdd();
  await until('it hangs', async () => existsSync(host.file('/run/hung/pid')));
  const pid = readFileSync(host.file('/run/hung/pid'), 'utf8').trim();
  // With an agent, its rules wait for those of the first.
  await second.add();
  const { error } = await hanging;
  t.true(performance.now() - start < 150_000);
  t.is(error?.code, 11);
  t.regex(error!.msg, /^"iptables-restore" had not ended after 60 seconds, and was killed\. Try again/);
  // A zombie has no executable.
  await until('it is gone', async () => !existsSync(`/proc/${pid}/exe`));
  await second.check();
  await first.del();
  await second.del();
  t.notRegex(JSON.stringify(await snapshot(host)), /10\.34\.0\.[2-9]/);
});
