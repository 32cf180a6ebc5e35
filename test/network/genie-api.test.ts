/** genie with the Kubernetes API, and networks chosen by load. */

import test, { type ExecutionContext } from 'ava';
import { Attachment, attach } from '../support/chain.ts';
import {
  annotationsOf,
  bridgeConfig,
  createPod,
  define,
  makeNode,
  type Node,
  networkStatusOf,
} from '../support/kube-pods.ts';
import { interfacesOf, ipv4Of, mentions, several } from '../support/several.ts';

const standard = 'k8s.v1.cni.cncf.io/networks';
const preferences = 'multi-ip-preferences';

/** A node with genie in place of multus. */
async function makeGenieNode(t: ExecutionContext): Promise<Node> {
  const { host, api } = await makeNode(t);
  const kubernetes = { kubeconfig: api.kubeconfig() };
  return { host, api, network: several('genie', { kubernetes, default_plugin: 'pods' }) };
}

test('a pod has the networks of its annotations, and its addresses are told', async (t) => {
  const { host, api, network } = await makeGenieNode(t);
  define(api, 'shop', 'fast', bridgeConfig(1));
  define(api, 'infra', 'shared', bridgeConfig(2));
  const attachWith = async (name: string, annotations: Record<string, string>) =>
    await attach(host, network, { args: createPod(api, annotations, { name }) });
  const addressOf = async (pod: Attachment, ifname: string) =>
    (await ipv4Of(pod.pod, ifname))[0]!.split('/')[0]!;

  const several = await attachWith('several', { cni: 'pods,storage@st0' });
  t.deepEqual(await interfacesOf(several.pod), ['eth0', 'st0']);
  t.deepEqual(JSON.parse(annotationsOf(api, 'shop', 'several')[preferences]!), {
    multi_entry: 2,
    ips: {
      ip1: { ip: await addressOf(several, 'eth0'), interface: 'eth0' },
      ip2: { ip: await addressOf(several, 'st0'), interface: 'st0' },
    },
  });

  const one = await attachWith('one', {});
  t.deepEqual(await interfacesOf(one.pod), ['eth0']);
  t.deepEqual(annotationsOf(api, 'shop', 'one'), {});

  const defined = await attachWith('defined', { [standard]: 'fast,infra/shared' });
  t.deepEqual(await interfacesOf(defined.pod), ['eth0', 'eth1', 'eth2']);
  t.deepEqual(
    networkStatusOf(api, 'shop', 'defined').map(({ name, ips }) => [name, ips]),
    [
      ['pods', [await addressOf(defined, 'eth0')]],
      ['shop/fast', [await addressOf(defined, 'eth1')]],
      ['infra/shared', [await addressOf(defined, 'eth2')]],
    ],
  );

  await api.down();
  for (const pod of [several, one, defined]) {
    await pod.check();
    await pod.del();
    t.deepEqual(mentions(host, pod.pod), []);
  }
});

test('ADD succeeds though the annotations cannot be written, and fails when they cannot be read', async (t) => {
  const { host, api, network } = await makeGenieNode(t);
  api.isAllowed = (_user, verb) => verb === 'get';
  const args = createPod(api, { cni: 'pods,storage' });
  const pod = new Attachment(host, await host.addPod(), network, { args });
  const { exit, stderr } = await pod.tryAdd();
  t.is(exit, 0);
  t.regex(stderr, /annotations do not tell its networks: .*forbids it/);
  t.deepEqual(await interfacesOf(pod.pod), ['eth0', 'eth1']);
  await pod.del();
  await api.down();
  t.regex((await pod.tryAdd()).error!.msg, /does not answer/);
  t.deepEqual(await interfacesOf(pod.pod), []);
});

test('a blank annotation leaves the choice to the load: of equals, the default network', async (t) => {
  const { host, api, network } = await makeGenieNode(t);
  const idle = await attach(host, network, { args: createPod(api, { cni: '' }, { name: 'idle' }) });
  t.regex((await ipv4Of(idle.pod, 'eth0'))[0]!, /^10\.41\.0\./);
  t.is(annotationsOf(api, 'shop', 'idle').cni, 'pods');

  // Traffic on the bridges of two networks; the other bridges, and the parent of the macvlan, are idle.
  const busy = await attach(host, network, {
    args: createPod(api, { cni: 'pods,backup' }, { name: 'busy' }),
  });
  for (const gateway of ['10.41.0.1', '10.41.2.1'])
    await busy.pod.start(t, ['ping', '-i', '0.002', '-s', '1000', gateway]);
  const chosen = await attach(host, network, { args: createPod(api, { cni: ' ' }, { name: 'chosen' }) });
  t.regex((await ipv4Of(chosen.pod, 'eth0'))[0]!, /^10\.41\.[13]\./);
  t.true(['storage', 'uplink'].includes(annotationsOf(api, 'shop', 'chosen').cni!));
  await chosen.check();
  await chosen.del();
  t.deepEqual(mentions(host, chosen.pod), []);
});
