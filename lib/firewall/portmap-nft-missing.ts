/** What is missing of port mappings in nftables. */

import type { AttachmentId } from '../attachment.ts';
import { Address, type Prefix } from '../ip.ts';
import type { Once } from '../kernel/sharing.ts';
import { expressionValue } from '../netlink/nftables/expressions.ts';
import type { NftRule } from '../netlink/nftables/rules.ts';
import { describeLost } from './backend.ts';
import { leadsTo, seenRules } from './nftables.ts';
import { boundAddress, type PortMapOptions, type PortMapping } from './portmap-backend.ts';
import { hasConditions, type ReadMapping, readMapping } from './portmap-nft-mapping.ts';
import {
  commentOf,
  entryChains,
  isConditionalEntry,
  mappingChain,
  masqueradeChain,
  masqueradedSources,
  olderChain,
  tables,
} from './portmap-nft-rules.ts';

/**
 * What is missing of an attachment's mappings of one family, and of what all attachments share. Rules are
 * compared by their meaning, as nft(8), with which the reference plugin writes them, may express the same in
 * another way.
 * @param look as for seenRules.
 * @returns a description of each.
 * @throws NftablesError
 */
export function missingMappings(
  attachment: AttachmentId,
  container: Prefix,
  mappings: readonly PortMapping[],
  options: PortMapOptions,
  look?: Once,
): string[] {
  const table = tables[container.family];
  const name = `table "${table.family} ${table.name}"`;
  // Other networks may have conditions on the way, and older reference plugins have a shorter way.
  const isEntered = (chain: string) => entryChains.every((entry) => leadsTo(table, entry, chain, look));
  const own = (chain: string) =>
    seenRules(table, chain, look).filter(({ comment }) => comment === commentOf(attachment));
  // A mapping without conditions of its own may have them on the way.
  const isOpen =
    options.conditions[container.family].length > 0 &&
    !entryChains.every((entry) => seenRules(table, entry, look).some(isConditionalEntry));
  const mapped = new Set(
    [mappingChain, ...(isEntered(olderChain) ? [olderChain] : [])].flatMap((chain) =>
      own(chain)
        .filter((rule) => !isOpen || hasConditions(rule))
        .map((rule) => keyOf(readMapping(rule))),
    ),
  );
  const lost = mappings.filter(
    (mapping) =>
      !mapped.has(
        keyOf({
          ...mapping,
          hostIP: boundAddress(mapping),
          port: mapping.hostPort,
          container: container.address,
        }),
      ),
  );
  const masqueraded = own(masqueradeChain)
    .map(comparedAddresses)
    .filter(([destination]) => container.address.equals(destination));
  const sources = masqueradedSources(container, options).filter(
    (wanted) => !masqueraded.some(([, source]) => !source || source.isUnspecified || wanted?.equals(source)),
  );
  return [
    ...(isEntered(mappingChain) ? [] : [`rules of chains "prerouting" and "output" in ${name}`]),
    ...describeLost(mappingChain, lost.length, name),
    ...describeLost(masqueradeChain, sources.length, name),
  ];
}

function keyOf({ hostIP, protocol, port, container, containerPort }: ReadMapping): string {
  return [protocol, port, hostIP ?? '', container ?? '', containerPort].join(' ');
}

/** The addresses that a rule compares with, last one first: for masquerading, destination and source. */
function comparedAddresses({ expressions }: NftRule): Address[] {
  return expressions
    .flatMap((expression) => {
      const value = expression.name === 'cmp' ? expressionValue(expression) : undefined;
      return value?.length === 4 || value?.length === 16 ? [Address.fromBytes(value)] : [];
    })
    .reverse();
}
