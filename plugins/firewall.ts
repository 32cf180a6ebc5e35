/** firewall: lets a container's connections through a firewall that drops forwarded packets. */

import type { Call } from '../lib/cni/call.ts';
import { knownAddresses } from '../lib/cni/interface.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import { type InferShape, string } from '../lib/cni/schema.ts';
import { runAll } from '../lib/cni/steps.ts';
import { heldByOthers, notedAddresses } from '../lib/firewall/address-holders.ts';
import { type RegisterUndo, requireComplete } from '../lib/firewall/backend.ts';
import {
  type BackendChoice,
  changeWithBackend,
  likelyBackend,
  missingWithBackend,
  withBackend,
} from '../lib/firewall/backend-choice.ts';
import { type Claim, type ClaimDetails, detailsByAddress } from '../lib/firewall/claim-file.ts';
import { Claims } from '../lib/firewall/claims.ts';
import {
  firewalldForward,
  isFirewalldRunning,
  refuseUnheardFirewalld,
  Zone,
} from '../lib/firewall/firewalld.ts';
import {
  type ForwardBackend,
  type ForwardBackendName,
  type ForwardRequest,
  familiesOf,
  forwardBackendNames,
  type Isolation,
} from '../lib/firewall/forward.ts';
import { chainPattern } from '../lib/firewall/forward-chains.ts';
import { iptablesForward, reservedChains } from '../lib/firewall/forward-iptables.ts';
import { nftablesForward } from '../lib/firewall/forward-nftables.ts';
import { attachmentComment } from '../lib/firewall/names.ts';
import type { Address, Family } from '../lib/ip.ts';
import type { FileLock } from '../lib/kernel/lock.ts';
import type { Programs } from '../lib/kernel/programs.ts';

const config = {
  backend: string({
    values: ['', ...forwardBackendNames],
    description:
      'What lets connections through; by default firewalld where it runs, else iptables where it can be used, else nftables.',
  }),
  firewalldZone: string({ description: 'Zone that the container is put into; "trusted" by default.' }),
  iptablesAdminChainName: string({
    pattern: /^[A-Za-z0-9_.-]{1,28}$/,
    description: 'Chain of iptables with rules of the operator that come first; "CNI-ADMIN" by default.',
  }),
  nftablesForwardChain: string({
    pattern: chainPattern,
    description:
      'Base chain of nftables to let connections through in, such as "inet filter forward"; by default every one that drops all that it does not accept.',
  }),
  ingressPolicy: string({
    values: ['', 'open', 'same-bridge', 'isolated'],
    description: 'Who reaches the container over its bridge; everyone by default.',
  }),
};

type Config = InferShape<typeof config>;
type FirewallCall = Call<Config>;
type ForwardChoice = BackendChoice<ForwardBackendName>;

export const plugin = definePlugin({
  name: 'firewall',
  summary: "Lets a container's connections through the firewall of the host.",
  role: 'chained',
  since: '0.4.0',
  config,
  explain,
  validate,

  async add(call) {
    validate(call.config);
    const result = requirePrevResult(call);
    await allow(call, requestOf(call), await choiceFor(call), { mayHaveRules: false });
    return result;
  },

  async del(call) {
    const claims = claimsOf(call);
    claims.removeUnfinished();
    const own = claims.of(call.attachment);
    const known = knownAddresses(call).map(({ address }) => address);
    if (own.length === 0 && known.length === 0) return;
    const isHeld = heldByOthers(call.attachment, {
      isKnown: own.length > 0,
      isGone: (other) => claims.isGone(other),
    });
    await claims.release(own, { known, inUse: true, isHeld }, removal(call, claims, own));
  },

  async check(call) {
    requirePrevResult(call);
    requireComplete(
      await missing(call, requestOf(call), await choiceAsUsed(call)),
      'The firewall of the host does not treat packets of the container as it should',
    );
  },

  async repair(call) {
    requirePrevResult(call);
    const choice = await choiceAsUsed(call);
    const request = requestOf(call);
    const restore = () => allow(call, request, choice, { mayHaveRules: true });
    return (await missing(call, request, choice)).map((what) => ({ what, restore }));
  },

  async status(call) {
    validate(call.config);
    await withBackend(await choiceFor(call), (name) => backendOf(call, name).probe());
  },

  async gc(call) {
    const claims = claimsOf(call);
    const stale = claims.stale(call.network, call.validAttachments);
    claims.removeUnfinished();
    const { stale: known, isHeld } = notedAddresses(call.network, call.validAttachments);
    if (stale.length === 0 && known.length === 0) return;
    await claims.release(stale, { known, inUse: false, isHeld }, removal(call, claims, stale));
  },
});

function explain({ backend, ingressPolicy, nftablesForwardChain: chain }: Config): string[] {
  const means = backend || 'firewalld where it runs, else iptables where it can be used, else nftables';
  return [
    `Lets connections of the container, and answers to them, through the firewall of the host, by ${means}`,
    chain ? `With nftables it does so in chain "${chain}"` : '',
    ingressPolicy === 'same-bridge' ? 'Keeps the bridge apart from other isolated bridges' : '',
    ingressPolicy === 'isolated'
      ? 'Keeps the bridge apart from other isolated bridges, and its containers from one another'
      : '',
    'Notes in /run/cni/firewall which addresses it let through, for DEL and GC',
  ];
}

/** Refuses chains that iptables itself or this plugin's rules use. */
function validate({ iptablesAdminChainName: name }: Config): void {
  if (name && reservedChains.includes(name))
    throw new Error(
      `"iptablesAdminChainName" is "${name}", which has a meaning of its own. Name a chain that only your rules are in`,
    );
}

/** @param rules.mayHaveRules whether the addresses may have rules though nobody has a claim on them. */
function allow(
  call: FirewallCall,
  request: ForwardRequest,
  choice: ForwardChoice,
  rules: { mayHaveRules: boolean },
): Promise<void> {
  return changeWithBackend(
    choice,
    (what, step) => call.undo(what, step),
    (name, undo) => allowBy(call, request, name, { ...rules, undo }),
  );
}

function missing(call: FirewallCall, request: ForwardRequest, choice: ForwardChoice): Promise<string[]> {
  return missingWithBackend(choice, (name) => backendOf(call, name).missing(request));
}

/** Notes that the addresses are let through, and then lets them through. */
async function allowBy(
  call: FirewallCall,
  request: ForwardRequest,
  name: ForwardBackendName,
  { mayHaveRules, undo }: { mayHaveRules: boolean; undo: RegisterUndo },
): Promise<void> {
  const zone = name === 'firewalld' ? zoneName(call) : undefined;
  const details = { backends: [name], zone, netns: call.netns };
  const claims = await claimsOf(call).take(request.attachment, request.addresses, details);
  undo('give back the claims on addresses', () => claims.giveBack());
  const undoBy: RegisterUndo = (what, step) => undo(what, () => claims.takeBackBy(step));
  const isNew = claims.isNew && !mayHaveRules;
  await claims.settleAfter(() => backendOf(call, name).allow(request, isNew, undoBy));
}

/** What removes addresses, as is noted in claims, by programs that hold the lock they are given. */
function removal(call: FirewallCall, claims: Claims, own: readonly Claim[]) {
  const notes = detailsByAddress(own, (claim) => claims.read(claim));
  return (addresses: readonly Address[], lock: FileLock | undefined) =>
    remove(call, call.programs.holding(lock), addresses, notes);
}

/**
 * Removes addresses from the backends noted for them, or from every backend where nothing is noted: firewalld
 * may have been started or stopped since ADD.
 */
async function remove(
  call: FirewallCall,
  programs: Programs,
  addresses: readonly Address[],
  notes: ReadonlyMap<string, ClaimDetails | undefined>,
): Promise<void> {
  const { backend } = call.config;
  const isUnknown = (address: Address) => !notes.get(`${address}`);
  const hasFirewalld =
    addresses.some(isUnknown) && (backend === 'firewalld' || (await isFirewalldRunning(programs)));
  const toldTo = (name: ForwardBackendName) =>
    addresses.filter((address) => {
      const known = notes.get(`${address}`)?.backends.includes(name);
      return known ?? (name !== 'firewalld' || hasFirewalld);
    });
  const step = (name: ForwardBackendName, told: readonly Address[], zone?: string) => () =>
    backendOf(call, name, { programs, zone }).remove(told);
  await runAll(
    call,
    ...(['iptables', 'nftables'] as const)
      .map((name) => ({ name, told: toldTo(name) }))
      .flatMap(({ name, told }) => (told.length > 0 ? [step(name, told)] : [])),
    ...toldTo('firewalld').map((one) => step('firewalld', [one], notes.get(`${one}`)?.zone)),
  );
}

/** The configured backend, else the host's. @param used what the container was added with. */
async function choiceFor(call: FirewallCall, used?: ForwardBackendName): Promise<ForwardChoice> {
  const { config, programs } = call;
  const choice = { programs, families: familiesOfResult(call), table: 'filter' } as const;
  if (config.backend) return { ...choice, fixed: config.backend as ForwardBackendName };
  if (await isFirewalldRunning(programs)) return { ...choice, fixed: 'firewalld' };
  refuseUnheardFirewalld(programs);
  return { ...choice, fixed: used === 'firewalld' ? undefined : used };
}

/** As {@link choiceFor}, with the backend noted for this attachment unless the host has firewalld by now. */
async function choiceAsUsed(call: FirewallCall): Promise<ForwardChoice> {
  if (call.config.backend) return await choiceFor(call);
  const claims = claimsOf(call);
  const [claim] = claims.of(call.attachment);
  return await choiceFor(call, claim && claims.read(claim)?.backends.at(-1));
}

function backendOf(
  call: FirewallCall,
  name: ForwardBackendName,
  told: { programs?: Programs; zone?: string | undefined } = {},
): ForwardBackend {
  const { config } = call;
  const { programs = call.programs, zone = zoneName(call) } = told;
  switch (name) {
    case 'iptables':
      return iptablesForward(programs, config.iptablesAdminChainName || 'CNI-ADMIN');
    case 'nftables':
      return nftablesForward({
        programs,
        chain: config.nftablesForwardChain,
        known: () =>
          claimsOf(call)
            .ofBackend('nftables')
            .map((claim) => ({ address: claim.address, comment: commentOf(call, claim) })),
      });
    case 'firewalld': {
      const families = familiesOfResult(call);
      const isolating = likelyBackend({ programs, families, table: 'filter' });
      return firewalldForward(new Zone(programs, zone), backendOf(call, isolating, { programs }));
    }
  }
}

function commentOf(call: FirewallCall, claim: Claim): string {
  const owner = claimsOf(call).read(claim)?.owner;
  return owner ? attachmentComment(owner) : claim.tag;
}

function claimsOf(call: FirewallCall): Claims {
  return new Claims((message) => call.warn(message), undefined, call.programs.once);
}

function zoneName({ config }: FirewallCall): string {
  return config.firewalldZone || 'trusted';
}

function familiesOfResult(call: FirewallCall): Family[] {
  return familiesOf(knownAddresses(call).map(({ address }) => address));
}

function requestOf(call: FirewallCall): ForwardRequest {
  const addresses = knownAddresses(call).map(({ address }) => address);
  const { attachment } = call;
  return { attachment, addresses, families: familiesOf(addresses), isolation: isolationOf(call) };
}

/** The bridge to isolate: the first interface of the result, where the bridge plugin puts it. */
function isolationOf(call: FirewallCall): Isolation | undefined {
  const policy = call.config.ingressPolicy;
  if (policy !== 'same-bridge' && policy !== 'isolated') return undefined;
  const bridge = call.prevResult?.interfaces[0];
  // Others, such as ptp, put a host interface there, too. A missing bridge is for its own plugin to report.
  const { kind } = (bridge && !bridge.sandbox && call.hostLink(bridge.name)) || { kind: 'bridge' };
  if (bridge && !bridge.sandbox && kind === 'bridge') return { bridge: bridge.name, policy };
  throw new Error(
    `"ingressPolicy" is "${policy}", but the plugin before made no bridge. Put this plugin behind "bridge", or remove the key`,
  );
}
