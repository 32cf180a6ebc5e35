import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { Lease } from '../../../ipam/dhcp/lease.ts';
import { bootId, msSinceBoot } from '../../../lib/kernel/boot.ts';
import { Netns } from '../../../lib/kernel/netns.ts';

test('a lease whose renewals fail ends in time, however long the pause after a failure', async (t) => {
  using netns = Netns.create();
  const path = `/proc/${process.pid}/fd/${netns.fd}`;
  const ip = (...args: string[]) =>
    execFileSync('nsenter', [`--net=${path}`, 'ip', ...args], { encoding: 'utf8' });
  ip('link', 'add', 'one', 'type', 'veth', 'peer', 'name', 'two');
  // The address from which a renewal would be sent is missing, which the kernel minds once there is another.
  for (const name of ['lo', 'one']) ip('link', 'set', name, 'up');
  const now = msSinceBoot();
  const text = JSON.stringify({
    boot: bootId(),
    owner: { containerId: 'c', network: 'n', ifname: 'one', netns: path },
    options: { clientId: [0, 99], request: [], provide: [] },
    server: '10.99.255.254',
    times: { renewAt: now, rebindAt: now + 3000, expiresAt: now + 6000 },
    result: { cniVersion: '1.1.0', ips: [{ address: '10.99.0.5/16' }] },
  });
  const told: string[] = [];
  let hasEnded = false;
  const lease = Lease.restore(text, {
    settings: { broadcast: false, resendMax: 1000, resendTimeout: 1000 },
    renewed() {},
    ended() {
      hasEnded = true;
    },
    log: (message) => void told.push(message),
  });
  t.teardown(() => lease?.stop());
  while (!hasEnded && msSinceBoot() < now + 60_000) await sleep(10);
  t.deepEqual(
    told.map((message) => /the lease of \S+ has ended|bind a UDP socket/.exec(message)?.[0]),
    ['bind a UDP socket', 'bind a UDP socket', 'the lease of 10.99.0.5/16 has ended'],
  );
  t.notRegex(ip('link', 'show', 'one'), /\bUP\b/);
});
