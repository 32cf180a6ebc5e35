/**
 * Forms of configurations in templates, runtimes and older files: empty strings, null, explicit zeros, bursts
 * of 4 GB. Each suite accepts what the other accepts, and ours checks and deletes what the reference made of
 * it.
 */

import test from 'ava';
import { Attachment, type Conflist } from '../support/chain.ts';
import { makeHost } from '../support/host.ts';
import type { Outcome, Suite } from '../support/plugin.ts';

const bridge = {
  type: 'bridge',
  bridge: 'br0',
  isGateway: true,
  ipam: { type: 'host-local', subnet: '10.5.0.0/24' },
};

/** Keys of a plugin, and what the runtime passes with them. */
type Form = readonly [keys: object, capabilities?: Record<string, unknown>];

const mapped = { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] };
const limited = (rate: number, burst: number) => ({
  bandwidth: { ingressRate: rate, ingressBurst: burst, egressRate: rate, egressBurst: burst },
});

const forms: Record<string, readonly Form[]> = {
  bridge: [
    [{ mtu: 0, vlan: 0 }],
    [{ ipMasq: null, hairpinMode: null, isDefaultGateway: null, vlan: null }],
    [{ dns: {}, args: null, capabilities: null, runtimeConfig: null }],
    [{ dns: null, args: { cni: null }, ipam: { ...bridge.ipam, routes: null, dataDir: '', resolvConf: '' } }],
    [{ args: { cni: { mac: '' } } }],
  ],
  firewall: [
    [{ backend: '', firewalldZone: '', iptablesAdminChainName: '' }],
    [{ backend: null, firewalldZone: null, iptablesAdminChainName: null }],
    [{ ingressPolicy: '' }],
  ],
  portmap: [
    [{ snat: null, markMasqBit: null, conditionsV4: null, conditionsV6: null }, mapped],
    [{ snat: false, markMasqBit: 0, conditionsV4: [], conditionsV6: [] }, mapped],
    [{ externalSetMarkChain: null, backend: null }, mapped],
    [{}, { portMappings: [] }],
    [{}, { portMappings: null }],
    [{}, { portMappings: [{ ...mapped.portMappings[0], hostIP: '' }] }],
    [{}, { portMappings: [{ ...mapped.portMappings[0], protocol: 'TCP', hostIP: '0.0.0.0' }] }],
  ],
  bandwidth: [
    [{ ingressRate: 0, ingressBurst: 0, egressRate: 0, egressBurst: 0 }],
    [{ ingressRate: null, ingressBurst: null }, { bandwidth: null }],
    [{}, limited(10e6, 2 ** 32 - 1)],
    [{}, limited(1e6, 8 * (2 ** 32 - 1) - 1)],
    [{}, limited(1e9, 8 * (2 ** 32 - 1) - 1)],
    [{}, { bandwidth: { ingressRate: 10e6, ingressBurst: 2 ** 32 - 1 } }],
  ],
  tuning: [
    [{ sysctl: null, mac: '', mtu: 0, promisc: false, allmulti: null, txQLen: null, dataDir: '' }],
    [{ sysctl: { '/net/core/somaxconn': '500', 'net//ipv4/ip_forward': '1' } }],
    [{ sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' }, mac: '0a58.0a01.0005' }],
    [{ mac: '02:00:00:00:00:01', mtu: 1400, args: { cni: { mac: '02-00-00-00-00-0A', mtu: 0 } } }],
  ],
  sbr: [[{ table: null }], [{ gateways: null }], [{ gateways: [], table: 100 }]],
};

for (const [type, list] of Object.entries(forms))
  test(`${type} takes every form that the reference takes`, async (t) => {
    const host = await makeHost(t);
    for (const [keys, given] of list) {
      const plugin = { type, ...(given && { capabilities: { [Object.keys(given)[0]!]: true } }), ...keys };
      const plugins = type === 'bridge' ? [{ ...bridge, ...keys }] : [bridge, plugin];
      const network: Conflist = { cniVersion: '1.0.0', name: 'net', plugins };
      const what = JSON.stringify([keys, given]);
      for (const [suite, other] of [
        ['reference', 'ours'],
        ['ours', 'reference'],
      ] as [Suite, Suite][]) {
        const pod = await host.addPod();
        const one = new Attachment(host, pod, network, { capabilities: given ?? {} });
        const fine = (outcome: Outcome, step: string) =>
          t.is(outcome.exit, 0, `${step} after ADD by ${suite} ${what}: ${outcome.stdout}${outcome.stderr}`);
        fine(await one.tryAdd({ suite }), 'ADD');
        fine(await one.tryCheck({ suite: 'ours' }), 'CHECK');
        fine(await one.tryDel({ suite: other }), 'DEL');
        await pod.remove();
      }
    }
  });
