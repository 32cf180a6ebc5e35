/** Checks configuration files against each other. */

import { basename } from 'node:path';
import type { AddressPool } from '../../lib/cni/plugin.ts';
import { getKey } from '../../lib/cni/schema.ts';
import { isIPv4, poolsOverlap, subnetsOverlap } from '../addresses.ts';
import { bridgeOf } from '../inner.ts';
import { isLoopback, type NetworkList } from '../libcni/conflist.ts';
import type { CheckedFile } from './file.ts';
import { at, error, type Finding, warning } from './finding.ts';
import type { CheckedPlugin } from './host.ts';

/** A plugin of one of the networks, and its file. */
interface Place extends CheckedPlugin {
  readonly checked: CheckedFile;
  readonly network: NetworkList;
}

/**
 * Checks the networks of a host against each other, and adds what it finds to the later file of each pair.
 * @param files in the order in which runtimes take them.
 */
export function checkNetworks(files: readonly CheckedFile[]): void {
  const places = files.flatMap((checked) =>
    checked.networks.flatMap(({ network, plugins }) =>
      plugins.map((one): Place => ({ ...one, checked, network })),
    ),
  );
  const loadable = files.filter(({ network }) => network);
  if (loadable.length > 1 && isLoopback(loadable[0]!.network!))
    loadable[0]!.findings.push(
      warning(
        'loopback-first',
        '',
        'This file comes first, so that containerd and CRI-O give pods nothing but "lo". Rename it to sort last, for example "zz-loopback.conf"',
      ),
    );
  for (const [i, { network, findings }] of files.entries()) {
    const earlier = files.slice(0, i).find((other) => network && other.network?.name === network.name);
    if (earlier)
      findings.push(
        warning(
          'same-name',
          'name',
          `Network "${network!.name}" is also in ${basename(earlier.file)}, which is found first, so that this file is not used. Remove one of them, or rename the network`,
        ),
      );
  }
  for (const [i, place] of places.entries())
    for (const other of places.slice(0, i))
      if (other.network.name !== place.network.name) place.checked.findings.push(...compare(place, other));
}

function compare(place: Place, other: Place): Finding[] {
  return [...compareAddresses(place, other), ...compareBridges(place, other)];
}

function compareAddresses(place: Place, other: Place): Finding[] {
  const path = at(place.path, 'ipam');
  const where = describe(other);
  for (const mine of place.pools)
    for (const theirs of other.pools) {
      if (!subnetsOverlap(mine, theirs)) continue;
      const clash = poolsOverlap(mine, theirs) && clashOf(mine, theirs, path, where);
      if (clash) return [clash];
      if (isRouted(place) && isRouted(other) && attachedTo(place) !== attachedTo(other))
        return [
          error(
            'overlap',
            path,
            `Subnet ${mine.subnet} overlaps with ${theirs.subnet} of ${where}, and the host can route it to only one of them. ` +
              'Give each network a subnet of its own',
          ),
        ];
    }
  return [];
}

/** Reports that overlapping pools can hand out the same address, unless they cannot, or are meant to. */
function clashOf(mine: AddressPool, theirs: AddressPool, path: string, where: string): Finding | undefined {
  const overlapping = `Addresses ${mine.range} overlap with ${theirs.range} of ${where}`;
  const [own, other] = [mine.shared, theirs.shared];
  if (!own || !other)
    return error('overlap', path, `${overlapping}: two pods can get the same one. Make the ranges disjoint`);
  if (own.addressSpace !== other.addressSpace) return undefined;
  // Places that the configuration does not name may be the same.
  const isTold = own.places.length > 0 && other.places.length > 0;
  if (isTold && !haveCommon(own.places, other.places))
    return warning(
      'overlap',
      path,
      `${overlapping}. They are kept in ${own.places.join(', ')} here, and in ${other.places.join(', ')} there: two pods can get the same one, ` +
        'unless that is one cluster. Name the same in both, or make the ranges disjoint',
    );
  if (haveCommon(own.names, other.names)) return undefined;
  return warning(
    'overlap',
    path,
    `${overlapping}, and "enable_overlapping_ranges" is false: two pods can get the same one. ` +
      'Make the ranges disjoint, or give each network its own "network_name" if that is meant',
  );
}

function haveCommon(a: readonly string[], b: readonly string[]): boolean {
  return a.some((one) => b.includes(one));
}

/** Whether the host has routes to the network's pods. */
function isRouted({ entry: { type, config } }: Place): boolean {
  return type === 'ptp' || (type === 'bridge' && isGateway(config));
}

/** What connects the network's pods: networks that have this in common may share a subnet. */
function attachedTo({ network, entry: { type, config } }: Place): string {
  const bridge = bridgeOf({ type, config });
  if (bridge !== undefined) return `bridge ${bridge}`;
  if (typeof config.master === 'string') return `${type} ${config.master}`;
  return `${type} ${network.name}`;
}

/** Settings of the bridge itself, which the first pod's network determines. */
const bridgeSettings = ['mtu', 'promiscMode', 'isGateway', 'isDefaultGateway'] as const;

function compareBridges(place: Place, other: Place): Finding[] {
  const [mine, theirs] = [place.maker.config, other.maker.config];
  const name = bridgeOf(place.maker);
  if (name === undefined || name !== bridgeOf(other.maker)) return [];
  const path = place.maker.isDelegate ? at(place.path, 'delegate') : place.path;
  const findings: Finding[] = [];
  const theirGateways = gatewaySubnets(other);
  for (const subnet of gatewaySubnets(place)) {
    const clash = theirGateways.find((one) => one !== subnet);
    if (!clash) continue;
    findings.push(
      error(
        'shared-bridge',
        at(path, 'bridge'),
        `Bridge "${name}" gets a gateway address in ${subnet} here and in ${clash} in ${describe(other)}, ` +
          'and whichever network comes second fails. Use a bridge of its own for each',
      ),
    );
  }
  // A delegate gets its MTU only when it is run.
  const hasDelegate = place.maker.isDelegate || other.maker.isDelegate;
  for (const key of bridgeSettings) {
    if (key === 'mtu' && hasDelegate) continue;
    const [value, otherValue] = [getKey(mine, key) ?? false, getKey(theirs, key) ?? false];
    if (value !== otherValue)
      findings.push(
        warning(
          'shared-bridge',
          at(path, key),
          `Bridge "${name}" is shared with ${describe(other)}, but "${key}" is ${shown(value)} here and ${shown(otherValue)} there`,
        ),
      );
  }
  if (usesVlans(mine) !== usesVlans(theirs))
    findings.push(
      warning(
        'shared-bridge',
        at(path, 'bridge'),
        `Bridge "${name}" is shared with ${describe(other)}, but only one of the two uses VLANs, which are turned on when the bridge is created`,
      ),
    );
  return findings;
}

/** The IPv4 subnets in which a bridge gets the gateway's address; only a node knows that of a delegate. */
function gatewaySubnets({ entry, maker: { config, isDelegate }, pools }: Place): string[] {
  if (!isGateway(config)) return [];
  if (isDelegate) return [`the subnet of "${entry.type}"`];
  return [...new Set(pools.filter(isIPv4).map(({ subnet }) => subnet))];
}

function isGateway(config: object): boolean {
  return getKey(config, 'isGateway') === true || getKey(config, 'isDefaultGateway') === true;
}

function usesVlans(config: object): boolean {
  return Boolean(getKey(config, 'vlan')) || Boolean(getKey(config, 'vlanTrunk'));
}

function shown(value: unknown): string {
  return value === false ? 'not set' : JSON.stringify(value);
}

function describe({ checked, network }: Place): string {
  return `network "${network.name}" (${basename(checked.file)})`;
}
