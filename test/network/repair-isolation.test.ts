/**
 * What keeps bridges, and the pods of a bridge, apart comes back.
 * Runs once: no agent takes part.
 */

import test, { type ExecutionContext } from 'ava';
import { converse, serveLines } from '../support/connection.ts';
import { firewallNet, rulesOf } from '../support/firewall.ts';
import type { Pod } from '../support/host.ts';
import { addresses, ping } from '../support/observe.ts';
import { makeOperator } from '../support/operator.ts';

/** A host with two pods on a bridge whose pods reach one another, and two on one whose pods do not. */
async function scene(t: ExecutionContext, backend: string) {
  const on = await makeOperator(t, [
    firewallNet('1.1.0', { backend, ingressPolicy: 'same-bridge' }, 'same', '10.8'),
    firewallNet('1.1.0', { backend, ingressPolicy: 'isolated' }, 'isola', '10.7'),
  ]);
  // Kernels without CONFIG_NFT_BRIDGE_META isolate pods within a bridge by these alone.
  await on.sh('cd /proc/sys/net/bridge; echo 1 | tee bridge-nf-call-iptables bridge-nf-call-ip6tables');
  const pods: Pod[] = [];
  for (const network of ['same', 'same', 'isola', 'isola']) pods.push(await on.attach(network));
  const ips: string[][] = [];
  for (const pod of pods) ips.push((await addresses(pod, 'eth0')).map((one) => one.split('/')[0]!));
  /** Which of the other pods answer each pod, by both of their addresses. */
  const reached = () =>
    Promise.all(
      pods.map((pod, from) =>
        Promise.all(
          ips.map(async (both, to) => {
            if (to === from) return 'self';
            const answers = await Promise.all(both.map((ip) => ping(pod, ip)));
            return answers.join();
          }),
        ),
      ),
    );
  return { on, pods, ips, reached };
}

const [self, none, all] = ['self', 'false,false', 'true,true'];
const kept = [
  [self, all, none, none],
  [all, self, none, none],
  [none, none, self, none],
  [none, none, none, self],
];
const lost = kept.map((row) => row.map((one) => (one === none ? all : one)));

for (const [backend, title, fault, message] of [
  [
    'iptables',
    'iptables -F',
    'iptables -F; ip6tables -F',
    /isolation of bridge "isola" for IPv4\n.*isolation of bridge "isola" for IPv6\n/,
  ],
  [
    'iptables',
    'nft flush ruleset',
    'nft flush ruleset',
    /isolation of bridge "isola" for IPv4\n.*isolation of bridge "isola" for IPv6\n/,
  ],
  ['nftables', 'nft flush ruleset', 'nft flush ruleset', /isolation of bridge "isola"\n/],
  [
    'nftables',
    'a chain of the table that was flushed',
    'nft flush chain inet cni_firewall forward',
    /isolation of bridge "isola"\n/,
  ],
  [
    'nftables',
    'a set of the table that was flushed',
    'nft flush set inet cni_firewall isolated_bridges; nft flush chain inet cni_firewall forward',
    /isolation of bridge "isola"\n/,
  ],
] as const)
  test(`bridges, and pods of one, are kept apart again: ${backend}, ${title}`, async (t) => {
    const { on, pods, ips, reached } = await scene(t, backend);
    t.deepEqual(await reached(), kept, 'before');
    await serveLines(t, pods[1]!, 7000);
    const talks = await Promise.all(ips[1]!.map((ip) => converse(t, pods[0]!, ip, 7000)));
    const before = await rulesOf(on.host);
    t.is((await on.tryCni(['repair', '--dry-run'])).exit, 0, 'nothing is missing');
    await on.sh(fault);
    t.deepEqual(await reached(), lost, 'the fault is real');
    t.is((await on.tryCni(['repair', '--dry-run'])).exit, 1);
    const { exit, stdout } = await on.tryCni(['repair']);
    t.is(exit, 0, stdout);
    t.regex(stdout, message);
    t.deepEqual(await rulesOf(on.host), before);
    t.deepEqual(await reached(), kept);
    for (const say of talks) t.regex(await say('on'), / on$/);
    t.regex((await on.tryCni(['repair'])).stdout, /^0 attachments repaired, 4 intact\.\n$/);
  });
