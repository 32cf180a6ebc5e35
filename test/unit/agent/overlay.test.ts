/** Networks and keys of the overlay. What is expected is what flannel makes of the same input. */

import test from 'ava';
import { leaseSubnets } from '../../../agent/overlay/lease.ts';
import { type NetworkConfig, parseNetworkConfig } from '../../../agent/overlay/network-config.ts';
import { isOfNetwork, overlap, parseNode, reachValue, subnetKey } from '../../../agent/overlay/node.ts';
import { CniError } from '../../../lib/errors.ts';
import { type EtcdClient, EtcdUnavailableError } from '../../../lib/etcd/client.ts';
import { Address } from '../../../lib/ip.ts';

const Backend = { Type: 'vxlan' };
const parse = (config: object) => parseNetworkConfig(JSON.stringify({ Backend, ...config }));

/** Length, first and last subnet. */
function rangeOf({ ranges }: NetworkConfig, family: 4 | 6 = 4): string {
  const { length, first, last } = ranges[family]!;
  return `/${length} ${first} ${last}`;
}

test('subnets of a network', (t) => {
  for (const [config, expected] of [
    [{ Network: '10.244.0.0/16' }, '/24 10.244.1.0 10.244.255.0'],
    [{ Network: '10.244.7.9/16' }, '/24 10.244.1.0 10.244.255.0'],
    [{ Network: '10.0.0.0/8', SubnetLen: 20 }, '/20 10.0.16.0 10.255.240.0'],
    [{ Network: '10.3.0.0/22' }, '/24 10.3.1.0 10.3.3.0'],
    [{ Network: '10.3.0.0/24' }, '/26 10.3.0.64 10.3.0.192'],
    [{ Network: '10.3.0.0/28' }, '/30 10.3.0.4 10.3.0.12'],
    [{ network: '10.5.0.0/16', subnetmin: '10.5.10.0', SubnetMax: '10.5.12.0' }, '/24 10.5.10.0 10.5.12.0'],
    [{ Network: '255.255.0.0/16' }, '/24 255.255.1.0 255.255.255.0'],
  ] as const)
    t.is(rangeOf(parse(config)), expected);
  const both = parse({ Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd00::/48' });
  t.is(rangeOf(both, 6), '/64 fd00:0:0:1:: fd00:0:0:ffff::');
  t.is(parse({ Network: '10.244.0.0/16', IPv6Network: 'fd00::/48' }).ranges[6], undefined);
});

test('backends', (t) => {
  const backend = (more: object) => parse({ Network: '10.1.0.0/16', Backend: more }).backend;
  t.deepEqual(backend({ Type: 'vxlan' }), {
    ...{ type: 'vxlan', vni: 1, port: 8472, mtu: undefined },
    ...{ gbp: false, learning: false, directRouting: false },
  });
  t.deepEqual(
    backend({ type: 'vxlan', vni: 7, port: 4789, mtu: 9000, gbp: true, learning: true, directrouting: true }),
    {
      ...{ type: 'vxlan', vni: 7, port: 4789, mtu: 9000, gbp: true, learning: true, directRouting: true },
    },
  );
  t.is(backend({ Type: 'host-gw' }).type, 'host-gw');
  t.throws(() => backend({ Type: 'vxlan', VNI: 2 ** 24 }), { message: /VNI/ });
});

test('keys and values are those of flannel', (t) => {
  const value =
    '{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"5e:00:00:00:00:01"},"BackendV6Data":{"VNI":1,"VtepMAC":"5e:00:00:00:00:02"}}';
  const key = '10.244.1.0-24&fd00:10:244:1::-64';
  const node = parseNode(key, value);
  t.is(subnetKey(node.subnets), key);
  t.is(reachValue(node, 1), value);
  const alone = parseNode(
    '10.244.1.0-24',
    '{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw"}',
  );
  t.is(reachValue(alone, 1), '{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw"}');
  t.is(parseNode('10.244.1.0-24', '{"PublicIP":"0.0.0.0"}').publicIp[4], undefined);
  t.true(Address.parse('2001:db8::1').equals(node.publicIp[6]));

  const config = parse({ Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:10:244::/48' });
  t.true(isOfNetwork(config, node.subnets));
  t.false(isOfNetwork(config, alone.subnets), 'a part is missing');
  t.true(overlap(node.subnets, alone.subnets));
  const other = parseNode('10.244.2.0-24&fd00:10:244:1::-64', value);
  t.true(overlap(node.subnets, other.subnets), 'IPv6 counts as well');
});

test('a lease that etcd lets no key have is given back, unless the answer is not known', async (t) => {
  const config = parse({ Network: '10.244.0.0/16' });
  const reach = {
    backend: 'vxlan',
    publicIp: { 4: Address.parse('192.0.2.1'), 6: undefined },
    macs: { 4: undefined, 6: undefined },
  };
  for (const [error, revoked] of [
    [new CniError(999, 'permission denied'), ['7']],
    [new EtcdUnavailableError(11, 'no answer'), []],
  ] as const) {
    const given: unknown[] = [];
    const ask = async (path: string, request: { ID: string }) => {
      if (path === '/v3/lease/grant') return { ID: '7' };
      if (path === '/v3/kv/txn') throw error;
      given.push(request.ID);
      throw new Error('It cannot be given back either');
    };
    const client = { ask } as unknown as EtcdClient;
    await t.throwsAsync(leaseSubnets({ client, prefix: '/', config, reach }, [], undefined), { is: error });
    t.deepEqual(given, revoked);
  }
});

test('a subnet is found behind a node that has half of a large network', async (t) => {
  const config = parseNetworkConfig(
    JSON.stringify({
      ...{ Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd00::/48', IPv6SubnetLen: 126 },
      Backend: { Type: 'vxlan' },
    }),
  );
  const node = parseNode('10.244.0.0-17&fd00::-49', '{"BackendType":"vxlan"}');
  const answer = { header: {}, ID: '1', succeeded: true, responses: [{ response_put: {} }] };
  const client = { ask: async () => answer } as unknown as EtcdClient;
  const reach = {
    backend: 'vxlan',
    publicIp: { 4: Address.parse('192.0.2.1'), 6: undefined },
    macs: { 4: undefined, 6: undefined },
  };
  const found = [{ kv: { key: '/a', value: '', lease: '0' }, node }];
  const lease = await leaseSubnets({ client, prefix: '/', config, reach }, found, undefined);
  t.true(lease && isOfNetwork(config, lease.subnets) && !overlap(lease.subnets, node.subnets));
  t.regex(`${lease?.subnets[6]}`, /^fd00:0:0:8000::/);
});
