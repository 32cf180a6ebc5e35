/** The guest itself: it has the kinds of interface that it is for, and the plugins run in it. */

import { makeHost } from '../support/host.ts';
import * as observe from '../support/observe.ts';
import { runPlugin, succeeded } from '../support/plugin.ts';
import { guestTest as test } from '../support/uml.ts';

test('the guest has the kinds of interface that other kernels may lack', async (t) => {
  const host = await makeHost(t);
  await host.run(['ip', 'link', 'add', 'parent', 'type', 'dummy']);
  for (const kind of [
    ['ipvlan0', 'link', 'parent', 'type', 'ipvlan', 'mode', 'l3s'],
    ['vlan0', 'link', 'parent', 'type', 'vlan', 'id', '7'],
    ['vrf0', 'type', 'vrf', 'table', '10'],
    ['bridge0', 'type', 'bridge', 'vlan_filtering', '1'],
  ])
    await host.run(['ip', 'link', 'add', 'name', kind[0]!, ...kind.slice(1)]);
  const kinds = (await observe.links(host)).map(({ linkinfo }) => linkinfo?.info_kind).filter(Boolean);
  t.deepEqual(kinds, ['dummy', 'ipvlan', 'vlan', 'vrf', 'bridge']);
});

test('the plugins run in the guest', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  const config = { cniVersion: '1.0.0', name: 'lo', type: 'loopback' };
  succeeded(await runPlugin(host, 'loopback', 'ADD', { pod, config }));
  t.true((await observe.link(pod, 'lo'))?.flags.includes('UP'));
  t.true(await observe.ping(pod, '127.0.0.1'));
});
