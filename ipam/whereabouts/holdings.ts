/** What the attachments of a node have. */

import type { RemoteHolding } from '../../lib/cni/plugin.ts';
import type { EtcdClient } from '../../lib/etcd/client.ts';
import { behindPrefix, grantLease, hasValue, isAbsent, range, transact } from '../../lib/etcd/kv.ts';
import { nodeKey, type Owner, ownerKey, ownerOf, parseHolding, presenceKey } from './keys.ts';
import { isPresent, presenceSeconds } from './presence.ts';
import { givingBack } from './release.ts';

/** How many attachments are read at once. */
const page = 500;

/** An attachment, and what etcd has of it. */
interface Found {
  readonly owner: Owner;
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
      if (owner) yield { owner, text: value };
    }
    from = found.length < page ? undefined : `${found.at(-1)!.key}\0`;
  }
}

/**
 * What a node that is gone has left of a network. Each is released only if the node is still absent then.
 * @param quarantine in seconds.
 * @throws Error when the node is present; EtcdUnavailableError, CniError as {@link transact}.
 */
export async function leftBehind(
  client: EtcdClient,
  node: string,
  { network, quarantine }: { network: string; quarantine: number },
): Promise<RemoteHolding[]> {
  if (await isPresent(client, node)) throw present(node);
  const left: RemoteHolding[] = [];
  for await (const { owner, text } of holdingsOf(client, node, network)) {
    const holding = parseHolding(text);
    const release = async () => {
      const lease = quarantine > 0 ? await grantLease(client, quarantine) : undefined;
      const { succeeded } = await transact(client, {
        compare: [isAbsent(presenceKey(node)), hasValue(ownerKey(owner), text)],
        success: givingBack(owner, holding, lease),
      });
      if (!succeeded && (await isPresent(client, node))) throw present(node);
    };
    left.push({ owner, ips: holding.places.map(({ address }) => `${address}`), release });
  }
  return left;
}

function present(node: string): Error {
  return new Error(
    `Node "${node}" lives: it has called in the last ${presenceSeconds} seconds. Run "cni gc" on it, or wait until it has been down for that long`,
  );
}
