/** Leases run by the time since boot, whatever the time of day does. */

import { uptime } from 'node:os';
import test from 'ava';
import { isUsable, readGrant } from '../../../ipam/dhcp/grant.ts';
import { MessageType, Option } from '../../../ipam/dhcp/packet.ts';
import { readStoredLease } from '../../../ipam/dhcp/stored-lease.ts';
import { Address } from '../../../lib/ip.ts';

const hour = 3_600_000;
const answer = {
  op: 2 as const,
  transaction: 1,
  yourAddress: Address.parse('10.0.0.9'),
  hardwareAddress: Uint8Array.of(2, 0, 0, 0, 0, 1),
  options: new Map([
    [Option.MessageType, Uint8Array.of(MessageType.Ack)],
    [Option.ServerIdentifier, Uint8Array.of(10, 0, 0, 1)],
    [Option.SubnetMask, Uint8Array.of(255, 255, 255, 0)],
    [Option.LeaseTime, Uint8Array.of(0, 0, 0x0e, 0x10)],
  ]),
};

test.serial('a grant ends so long after boot, also when the time of day jumps meanwhile', (t) => {
  const { now } = Date;
  t.teardown(() => {
    Date.now = now;
  });
  const expiries = [0, 5 * hour, -5 * hour].map((jump) => {
    Date.now = () => now() + jump;
    const before = Math.floor(uptime() * 1000);
    const { renewAt, rebindAt, expiresAt } = readGrant(answer);
    t.is(expiresAt - renewAt, hour / 2);
    t.is(expiresAt - rebindAt, hour / 8);
    t.true(expiresAt >= before + hour, `${expiresAt - before}`);
    return expiresAt;
  });
  t.true(Math.max(...expiries) - Math.min(...expiries) < hour);
});

test('a server that names no time grants an hour, and no lease is shorter than a second', (t) => {
  for (const [bytes, seconds] of [
    [undefined, 3600],
    [[0, 0, 0, 120], 120],
    [[0, 0, 0, 0], 1],
  ] as const) {
    const options = new Map(answer.options);
    options.delete(Option.LeaseTime);
    if (bytes) options.set(Option.LeaseTime, Uint8Array.from(bytes));
    const { renewAt, expiresAt } = readGrant({ ...answer, options });
    t.is(Math.round(expiresAt - renewAt), seconds * 500);
  }
});

test('times of zero, and those that are not before the end, are taken as left out', (t) => {
  for (const [option, key, seconds] of [
    [Option.RenewalTime, 'renewAt', 1800],
    [Option.RebindingTime, 'rebindAt', 3150],
  ] as const)
    for (const [value, expected] of [
      [0, seconds],
      [1, 1],
      [3599, 3599],
      [3600, seconds],
    ] as const) {
      const options = new Map<number, Uint8Array>(answer.options);
      options.set(option, Uint8Array.of(0, 0, value >> 8, value & 0xff));
      const grant = readGrant({ ...answer, options });
      t.is(Math.round((grant.expiresAt - grant[key]) / 1000), 3600 - expected, `${key} ${value}`);
    }
});

const stored = {
  owner: { network: 'net', containerId: 'one', ifname: 'eth0', netns: '/run/netns/one' },
  options: { clientId: [1], request: [1], provide: [] },
  server: '10.0.0.1',
  result: {},
};

test('a renewal without a netmask names new times alone', (t) => {
  const previous = readGrant(answer);
  const options = new Map(answer.options);
  options.delete(Option.SubnetMask);
  options.set(Option.LeaseTime, Uint8Array.of(0, 0, 0, 120));
  const { renewAt, expiresAt, rebindAt, ...rest } = readGrant({ ...answer, options }, previous);
  t.is(Math.round(expiresAt - renewAt), 60_000);
  t.true(rebindAt > renewAt);
  const { address, server, gateway, routes } = previous;
  t.deepEqual(rest, { address, server, gateway, routes });
});

test('to whoever asks to keep an address, no other is an answer', (t) => {
  t.true(isUsable(answer, Address.parse('10.0.0.9')));
  t.false(isUsable(answer, Address.parse('10.0.0.8')));
  const refusal = new Map(answer.options).set(Option.MessageType, Uint8Array.of(MessageType.Nak));
  t.true(isUsable({ ...answer, options: refusal }, Address.parse('10.0.0.8')));
});

test('a lease that is written down keeps its times and its boot', (t) => {
  const times = { renewAt: 1, rebindAt: 2, expiresAt: 3 };
  const read = readStoredLease(JSON.stringify({ ...stored, boot: 'another', times }));
  t.like(read, { boot: 'another', times });
});

test('a lease of an earlier release, by the time of day, ends when it would have', (t) => {
  const [renewAt, rebindAt, expiresAt] = [1, 2, 3].map((hours) => Date.now() + hours * hour);
  const { boot, times } = readStoredLease(
    JSON.stringify({ ...stored, times: { renewAt, rebindAt, expiresAt } }),
  );
  t.is(boot, undefined);
  t.is(times.expiresAt - times.renewAt, 2 * hour);
  t.is(Math.round((times.renewAt - uptime() * 1000) / hour), 1);
  const forEver = readStoredLease(
    JSON.stringify({ ...stored, times: { renewAt, rebindAt, expiresAt: Number.MAX_SAFE_INTEGER } }),
  );
  t.is(forEver.times.expiresAt, Number.MAX_SAFE_INTEGER);
});
