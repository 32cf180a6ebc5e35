import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { Lease, type LeaseKeeper } from '../../../ipam/dhcp/lease.ts';
import { bootId, msSinceBoot } from '../../../lib/kernel/boot.ts';
import { Netns } from '../../../lib/kernel/netns.ts';

/** A lease as it is written down, of an interface in a network namespace. */
function leaseText(
  ifname: string,
  netns: string,
  times: { renewAt: number; rebindAt: number; expiresAt: number },
): string {
  return JSON.stringify({
    boot: bootId(),
    owner: { containerId: 'c', network: 'n', ifname, netns },
    options: { clientId: [0, 99], request: [], provide: [] },
    server: '10.99.255.254',
    times,
    result: { cniVersion: '1.1.0', ips: [{ address: '10.99.0.5/16' }] },
  });
}

/** Records what is reported of a lease. */
function listener() {
  const told: string[] = [];
  const state = { hasEnded: false };
  const keeper: LeaseKeeper = {
    settings: { broadcast: false, resendMax: 1000, resendTimeout: 1000 },
    renewed() {},
    ended() {
      state.hasEnded = true;
    },
    log: (message) => void told.push(message),
  };
  return { keeper, told, state };
}

/** Takes the place of timers, and lets the clock be read or not. */
function standIns(t: ExecutionContext) {
  const { openSync } = fs;
  const { setTimeout } = globalThis;
  t.teardown(() => {
    fs.openSync = openSync;
    syncBuiltinESMExports();
    globalThis.setTimeout = setTimeout;
  });
  const clock = { isReadable: true };
  fs.openSync = (path, ...more) => {
    if (path === '/proc/uptime' && !clock.isReadable)
      throw Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' });
    return openSync(path, ...more);
  };
  syncBuiltinESMExports();
  const timers: { wait: number; work: () => void }[] = [];
  globalThis.setTimeout = ((work: () => void, wait: number) => {
    timers.push({ wait, work });
  }) as unknown as typeof setTimeout;
  return { clock, timers };
}

test.serial('a clock that cannot be read ends no daemon, and is asked again after a minute', async (t) => {
  using netns = Netns.create();
  const now = msSinceBoot();
  const { clock, timers } = standIns(t);
  const { keeper, told, state } = listener();
  const path = `/proc/${process.pid}/fd/${netns.fd}`;
  clock.isReadable = false;
  Lease.restore(leaseText('lo', path, { renewAt: now, rebindAt: now, expiresAt: now }), keeper);
  const waits = [];
  // By turns it cannot be read when a timer is set, nor when something is to be done.
  for (const isReadable of [false, true, false, true]) {
    const { wait, work } = timers.pop()!;
    waits.push(wait);
    clock.isReadable = isReadable;
    t.notThrows(work);
  }
  t.deepEqual(waits, [60_000, 60_000, 0, 60_000]);
  t.deepEqual(timers, []);
  while (!state.hasEnded) await sleep(1);
  t.is(told.length, 3);
  t.regex(told[0]!, /EMFILE/);
  t.regex(told[1]!, /network is down/);
  t.regex(told[2]!, /the lease of 10\.99\.0\.5\/16 has ended/);
});

test('a lease whose renewals fail ends in time, however long the pause after a failure', async (t) => {
  using netns = Netns.create();
  const path = `/proc/${process.pid}/fd/${netns.fd}`;
  const ip = (...args: string[]) =>
    execFileSync('nsenter', [`--net=${path}`, 'ip', ...args], { encoding: 'utf8' });
  ip('link', 'add', 'one', 'type', 'veth', 'peer', 'name', 'two');
  ip('address', 'add', '10.99.0.5/16', 'dev', 'one');
  const now = msSinceBoot();
  const times = { renewAt: now, rebindAt: now + 10_000, expiresAt: now + 20_000 };
  const { keeper, told, state } = listener();
  const lease = Lease.restore(leaseText('one', path, times), keeper);
  t.teardown(() => lease?.stop());
  const end = now + 60_000;
  // As long as the interface is down, no renewal can be sent.
  while (told.length < 2 && msSinceBoot() < end) await sleep(10);
  ip('link', 'set', 'one', 'up');
  while (!state.hasEnded && msSinceBoot() < end) await sleep(10);
  t.deepEqual(
    told.map(
      (message) => /the lease of \S+ has ended|network is down|No DHCP server answered/.exec(message)?.[0],
    ),
    ['network is down', 'network is down', 'No DHCP server answered', 'the lease of 10.99.0.5/16 has ended'],
  );
  t.notRegex(ip('link', 'show', 'one'), /\bUP\b/);
});
