/** VLANs in pictures, on a kernel that has them. */

import { makeHost } from '../support/host.ts';
import { addTo, addUplink, cniIn, configure } from '../support/picture.ts';
import { guestTest as test } from '../support/uml.ts';

const ipam = (subnet: string) => ({ type: 'host-local', subnet });

test('a picture shows the VLANs of a bridge, and VLAN interfaces on a parent', async (t) => {
  const host = await makeHost(t);
  await addUplink(host, { ipv6: false });
  await host.run('ip link add link eth0 name eth0.30 up type vlan id 30'.split(' '));
  configure(
    host,
    {
      cniVersion: '1.0.0',
      name: 'tagged',
      plugins: [{ type: 'bridge', bridge: 'br0', vlan: 100, isGateway: true, ipam: ipam('10.5.0.0/24') }],
    },
    {
      cniVersion: '1.0.0',
      name: 'direct',
      plugins: [{ type: 'vlan', master: 'eth0', vlanId: 20, ipam: ipam('10.6.0.0/24') }],
    },
    {
      cniVersion: '1.0.0',
      name: 'above',
      plugins: [{ type: 'macvlan', master: 'eth0.30', ipam: ipam('10.7.0.0/24') }],
    },
  );
  for (const network of ['tagged', 'direct', 'above']) await addTo(host, network, { name: network });
  const text = (await cniIn(host, ['draw'])).stdout;
  t.regex(text, /bridge br0\n.*routed\n[^├└]*VLAN 100: 10\.5\.0\.1\/24\n/);
  t.regex(text, /default\/tagged\n.*veth[0-9a-f]{8}, VLAN 100\n[\s\S]*10\.5\.0\.2/);
  t.regex(text, /default\/direct\n.*vlan, VLAN 20\n/);
  t.regex(text, /eth0\.30\n.*VLAN 30\n[\s\S]*default\/above\n.*macvlan\n/);
  const svg = (await cniIn(host, ['draw', '--svg', '-'])).stdout;
  t.regex(svg, /VLAN 100: 10\.5\.0\.1\/24<\/text>/);
});
