/** Runs once: no agent takes part. */

import test from 'ava';
import { Etcd } from '../support/etcd.ts';
import { until } from '../support/observe.ts';
import { makeOperator } from '../support/operator.ts';
import type { Output } from '../support/run.ts';

const vlan = (etcd_host: string, ipam: object = {}) => ({
  ...{ cniVersion: '1.1.0', name: 'vlan7' },
  plugins: [
    {
      ...{ type: 'macvlan', master: 'up0' },
      ipam: {
        ...{ type: 'whereabouts', etcd_host, range: '10.70.0.0/28', gateway: '10.70.0.1' },
        exclude: ['10.70.0.8/29'],
        ...ipam,
      },
    },
  ],
});

interface Range {
  subnets: string[];
  gateways: string[];
  capacity: number;
  used?: number;
  free?: number;
}

test('network ls and inspect count what the whole cluster has taken of a range, and say so when etcd is away', async (t) => {
  const { host, configure, tryCni, attach } = await makeOperator(t, []);
  const etcd = await Etcd.start(t, host);
  await host.run(['ip', 'link', 'add', 'up0', 'up', 'type', 'veth', 'peer', 'name', 'up1']);
  configure(vlan(etcd.hosts, { ipRanges: [{ range: 'fd00:70::/64' }] }));
  // etcd has three seconds to tell what is used.
  const counted = async (...args: string[]) => {
    let output: Output;
    await until('etcd tells what is used', async () => {
      output = await tryCni(['network', ...args]);
      return !output.stdout.includes('Nobody tells');
    });
    return output!;
  };
  const empty = await counted('ls');
  t.is(empty.exit, 0, empty.stdout);
  t.regex(empty.stdout, /^vlan7 +macvlan +10\.70\.0\.0\/28 +10\.70\.0\.1 +6 +0 +6 +0 +vlan7\.conflist$/m);
  t.regex(empty.stdout, /^vlan7 +macvlan +fd00:70::\/64 +- +1\.8e19 +0 +1\.8e19 +0 /m);

  await attach('vlan7');
  await attach('vlan7', { NODENAME: 'elsewhere' });
  await etcd.put('/whereabouts/10.70.0.0/28', '10.70.0.7 old\n10.70.0.9 excluded\n');
  // Another network may allocate what this one does not.
  await etcd.put('/cni/addresses/in/@/4-0a460001', '{"owner":"/cni/addresses/of/node-9/vlan70/x/eth0"}');
  const { ranges } = JSON.parse((await counted('inspect', 'vlan7')).stdout)[0] as { ranges: Range[] };
  const [first, second] = ranges;
  t.like(first, { subnets: ['10.70.0.0/28'], gateways: ['10.70.0.1'], capacity: 6, used: 3, free: 3 });
  t.like(second, { subnets: ['fd00:70::/64'], used: 2 });
  for (let i = 0; i < 3; i++) await attach('vlan7', { NODENAME: 'third' });
  const full = await counted('ls');
  t.is(full.exit, 1);
  t.regex(full.stdout, /^vlan7 .* 6 +6 +0 +5 +vlan7\.conflist$/m);
  t.regex(full.stdout, /^vlan7: All addresses of 10\.70\.0\.1-10\.70\.0\.14 are given away/m);

  for (const signal of ['SIGSTOP', 'SIGKILL'] as const) {
    etcd.signal(0, signal);
    const away = await tryCni(['network', 'ls', '-o', 'json']);
    t.is(away.exit, 1);
    const [network] = (JSON.parse(away.stdout) as { networks: { ranges: Range[]; problems: string[] }[] })
      .networks;
    t.deepEqual(
      network!.ranges.map(({ capacity, used, free }) => [capacity, used, free]),
      [
        [6, undefined, undefined],
        [2 ** 64 - 1, undefined, undefined],
      ],
    );
    t.regex(
      network!.problems.join(),
      /Nobody tells how many addresses are used\. No member of etcd can answer/,
    );
    t.regex((await tryCni(['network', 'ls'])).stdout, /^vlan7 .* 6 +\? +\? +5 /m);
  }
  const collected = await tryCni(['gc', '--node', 'node-9']);
  t.is(collected.exit, 1);
  t.regex(collected.stderr, /Network "vlan7": No member of etcd can answer/);
  configure(vlan('', {}));
  t.regex((await tryCni(['network', 'ls'])).stdout, /^vlan7: .*"ipam" has no "etcd_host"/m);
});

test('gc --node without a network that shares its addresses says so', async (t) => {
  const ipam = { type: 'host-local', ranges: [[{ subnet: '10.9.0.0/24' }]] };
  const plugins = [{ type: 'bridge', bridge: 'br9', ipam }];
  const { tryCni } = await makeOperator(t, [{ cniVersion: '1.1.0', name: 'net', plugins }]);
  const { exit, stderr } = await tryCni(['gc', '--node', 'node-9']);
  t.is(exit, 1);
  t.regex(stderr, /nothing to collect of node "node-9": no network that was looked at \("net"\) has an IPAM/);
});
