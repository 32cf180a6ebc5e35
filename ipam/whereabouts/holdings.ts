/** What the attachments of a node have. */

import { NodePresentError, type RemoteHolding } from '../../lib/cni/plugin.ts';
import type { EtcdClient } from '../../lib/etcd/client.ts';
import {
  behindPrefix,
  get,
  grantLease,
  hasValue,
  isAbsent,
  noneBelow,
  range,
  transact,
} from '../../lib/etcd/kv.ts';
import { type Holding, nodeKey, type Owner, ownerKey, ownerOf, parseHolding, presenceKey } from './keys.ts';
import { hasPresence, isPresent, presenceSeconds } from './presence.ts';
import { givingBack } from './release.ts';

/** How many attachments are read at once. */
const page = 500;

/** An attachment, and what etcd has for it. */
export interface Found {
  readonly owner: Owner;
  readonly holding: Holding;
  /** The holding's value in etcd. */
  readonly text: string;
}

/**
 * Reads what the attachments of a network on a node have.
 * @throws EtcdUnavailableError, CniError as {@link transact}.
 */
export async function* holdingsOf(
  client: EtcdClient,
  node: string,
  network: string,
): AsyncGenerator<Found, void> {
  const prefix = nodeKey(node, network);
  for (let from: string | undefined = prefix; from !== undefined; ) {
    const { results } = await transact(client, {
      compare: [],
      success: [range(from, behindPrefix(prefix), { limit: page })],
    });
    const found = results[0]?.kvs ?? [];
    for (const { key, value } of found) {
      const owner = ownerOf(key);
      if (owner) yield { owner, holding: parseHolding(value), text: value };
    }
    from = found.length < page ? undefined : `${found.at(-1)!.key}\0`;
  }
}

/**
 * What a node that is gone has left in a network, or what hosts that are gone have left under its name. Each
 * is released only if that is still so then.
 * @param options.quarantine in seconds.
 * @param options.self the calling host, if the node is its own.
 * @throws NodePresentError when the node is present; EtcdUnavailableError, CniError as {@link transact}.
 */
export async function leftBehind(
  client: EtcdClient,
  node: string,
  {
    network,
    quarantine,
    self,
  }: { network: string; quarantine: number; self: { host: string | undefined } | undefined },
): Promise<RemoteHolding[]> {
  const presence = new Map<string | undefined, Promise<boolean>>();
  const isAny = async () => (await isPresent(client, node, undefined)) || (await hasPresence(client, node));
  /** An unknown host may be any of the node's hosts. */
  const isGone = async (host: string | undefined) => {
    if (self && (host === undefined || host === self.host)) return false;
    const asked = presence.get(host) ?? (host === undefined ? isAny() : isPresent(client, node, host));
    presence.set(host, asked);
    return !(await asked);
  };
  const left: RemoteHolding[] = [];
  let isKept = false;
  for await (const { owner, text, holding } of holdingsOf(client, node, network)) {
    if (!(await isGone(holding.host))) {
      isKept = true;
      continue;
    }
    const key = presenceKey(node, holding.host);
    const release = async () => {
      const lease = quarantine > 0 ? await grantLease(client, quarantine) : undefined;
      const { succeeded, results } = await transact(client, {
        compare: [
          isAbsent(key),
          ...(holding.host === undefined ? [noneBelow(`${key}/`)] : []),
          hasValue(ownerKey(owner), text),
        ],
        success: givingBack(owner, holding, lease),
        failure: [get(ownerKey(owner))],
      });
      const now = succeeded ? undefined : results[0]?.kvs[0]?.value;
      if (now === text) throw present(node);
      return now === undefined;
    };
    left.push({ owner, ips: holding.places.map(({ address }) => `${address}`), release });
  }
  if (isKept && left.length === 0 && !self) throw present(node);
  return left;
}

function present(node: string): NodePresentError {
  return new NodePresentError(
    `Node "${node}" lives: it has called in the last ${presenceSeconds} seconds. Run "cni gc" on it, or wait until it has been down for that long`,
  );
}
