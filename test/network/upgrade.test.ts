/**
 * Upgrade and downgrade with pods running. What older releases left for a pod was recorded
 * (test/support/older-state.ts); this one checks, deletes and collects it. In the other direction, what this
 * one leaves is the same, but for what older ones ignore. `npm run upgrade` runs the older code itself, and with
 * more networks.
 */

import test from 'ava';
import { attach, runNetworkVerb } from '../support/chain.ts';
import type { Host } from '../support/host.ts';
import { files, link, ping, until } from '../support/observe.ts';
import {
  type RecordedState,
  readRecorded,
  recordState,
  restoreState,
  withoutNames,
} from '../support/older-state.ts';

/** From before there was an agent, and a recent one. */
const releases = ['1282b20', 'c3c76ee'];

/** What tells of the recorded pod: rules with its addresses, its ID or its chains, and files. */
async function tracesOf(host: Host, { rules: recorded }: RecordedState): Promise<string[]> {
  const rules = [
    await host.run(['iptables-save']),
    await host.run(['ip6tables-save']),
    await host.run(['nft', 'list', 'ruleset']),
  ].join('\n');
  const chains =
    Object.values(recorded)
      .join()
      .match(/CNI-(?:DN-)?[0-9a-f]{16,}/g) ?? [];
  const ofPod = new RegExp(
    ['10\\.42\\.0\\.2\\b', 'fd00:42::2\\b', 'container-pod-recorded', ...new Set(chains)].join('|'),
  );
  const own = { ...files(host, '/var/lib/cni'), ...files(host, '/run/cni') };
  return [
    ...rules.split('\n').filter((line) => ofPod.test(line)),
    ...Object.entries(own).flatMap(([path, text]) => (ofPod.test(path) || ofPod.test(text) ? [path] : [])),
  ];
}

/** False for releases before claims, in which only the result says whom the firewall plugin lets through. */
function hasClaims({ files: all, network }: RecordedState): boolean {
  const lets = network.plugins.some(({ type }) => type === 'firewall');
  return !lets || Object.keys(all).some((path) => path.startsWith('/run/cni/firewall/'));
}

/**
 * Rules of nftables name the network in a place that `nft` does not print. When they are restored from what
 * it printed, as here, GC cannot tell whose port mappings they are, and leaves them to DEL.
 */
function isHiddenFromGC({ network }: RecordedState): boolean {
  return network.plugins.some(({ type, backend }) => type === 'portmap' && backend === 'nftables');
}

const valid = [{ containerID: 'container-pod-recorded', ifname: 'eth0' }];

for (const release of releases)
  for (const [name, state] of Object.entries(readRecorded(release))) {
    test(`upgrade from ${release}, ${name}: CHECK finds a pod in order, and DEL leaves nothing of it`, async (t) => {
      const { host, one } = await restoreState(t, state);
      t.true((await tracesOf(host, state)).length > 5);
      t.true(await ping(one.pod, '10.42.0.1'));
      await one.check();
      // A pod beside it gets an address and ports of its own.
      const beside = await attach(host, state.network);
      t.not(beside.ip, one.ip);
      await one.check();
      await one.del();
      t.deepEqual(await tracesOf(host, state), []);
      t.is(await link(one.pod, 'eth0'), undefined);
      await beside.check();
      await beside.del();
    });

    test(`upgrade from ${release}, ${name}: DEL of a pod whose namespace and result are lost`, async (t) => {
      const { host, one } = await restoreState(t, state);
      await one.pod.remove();
      if (hasClaims(state)) one.result = undefined;
      await one.del();
      t.deepEqual(await tracesOf(host, state), []);
      await until('the interface is gone', async () => (await link(host, vethOf(state))) === undefined);
    });

    test(`upgrade from ${release}, ${name}: GC keeps a pod that is valid, and collects one that is not`, async (t) => {
      const { host, one } = await restoreState(t, state);
      t.is((await runNetworkVerb(host, state.network, 'GC', { valid })).exit, 0);
      await one.check();
      t.true(await ping(one.pod, '10.42.0.1'));
      await one.pod.remove();
      t.is((await runNetworkVerb(host, state.network, 'GC', { valid: [] })).exit, 0);
      if (!hasClaims(state) || isHiddenFromGC(state)) await one.del();
      t.deepEqual(await tracesOf(host, state), []);
    });

    test(`downgrade to ${release}, ${name}: what this release leaves is what that one knows`, async (t) => {
      const { state: own, one } = await recordState(t, state.network);
      t.deepEqual(comparable(own, state), comparable(state, state));
      await one.del();
    });
  }

function vethOf({ result }: RecordedState): string {
  return result.interfaces!.find(({ name }) => name.startsWith('veth'))!.name;
}

/**
 * A state without what an older release neither reads nor stumbles over: the boot ID, the hosts that share
 * addresses, and in /run locks, hints of which rules are whose, and kinds of files that it does not write.
 */
function comparable(state: RecordedState, older: RecordedState) {
  const kindOf = (path: string) => /^\/run\/cni\/(?!iptables\/)[^/]+\//.exec(path)?.[0];
  const kinds = new Set(Object.keys(older.files).map(kindOf));
  const { files: all, rules, ...rest } = withoutNames(state);
  // Comments now go on with names for people after the digits; firewall looks up addresses, never comments.
  const nft = rules.nft.replaceAll(/comment "([0-9a-f]{16}-[0-9a-f]{16}), net: [^"]*"/g, 'comment "$1"');
  return {
    ...rest,
    rules: { ...rules, nft: nft.split(/^(?=table )/m).sort() },
    files: Object.entries(all)
      .filter(([path]) => !/\/\.owners\/[^/]+\/hosts$/.test(path))
      .filter(([path]) => path.startsWith('/var/lib/cni/') || (kindOf(path) && kinds.has(kindOf(path))))
      .map(([path, text]) => [path, path.endsWith('/stamp') ? '' : keysOf(older.files[path], text)])
      .sort(),
  };
}

/** A note with the keys that an older release knows: it ignores others. @param note the same of that one. */
function keysOf(note: string | undefined, text: string): unknown {
  if (!note?.startsWith('{')) return text;
  const known = Object.keys(JSON.parse(note) as object);
  return Object.entries(JSON.parse(text) as object).filter(([key]) => key !== 'boot' && known.includes(key));
}
