/** nftables as the firewall uses it: matches on addresses and ports, and a socket for transactions. */

import { CniError, ErrorCode } from '../errors.ts';
import type { Address, Family, Prefix } from '../ip.ts';
import { addressFamily } from '../kernel/family.ts';
import { eachTime, type Once } from '../kernel/sharing.ts';
import { NetlinkError } from '../netlink/error.ts';
import { isKernelError, KernelError } from '../netlink/libc.ts';
import type { Attribute, Request } from '../netlink/message.ts';
import { dnat, expressionValue, meta, payload, payloadIn } from '../netlink/nftables/expressions.ts';
import { listRules, type NftRule, targetChain } from '../netlink/nftables/rules.ts';
import { type NftTable, readGeneration, transaction } from '../netlink/nftables/wire.ts';
import { NetlinkProtocol, NetlinkSocket } from '../netlink/socket.ts';

/** Protocol numbers of netinet/in.h. */
export const protocolNumber: Record<string, number> = { tcp: 6, udp: 17, sctp: 132 };

/** Priorities of linux/netfilter_ipv4.h by their names in nft(8). */
export const Priority = { dstnat: -100, filter: 0, srcnat: 100 } as const;
/** Hooks of linux/netfilter.h. */
export const Hook = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const;

const addressOffset = { 4: { saddr: 12, daddr: 16 }, 6: { saddr: 8, daddr: 24 } } as const;

/**
 * The process's socket for the nftables of its own namespace. It stays open: while deleted rules are still to
 * be freed, the kernel makes whoever closes such a socket wait for that, some 15 ms, and holds up all changes
 * meanwhile.
 */
let opened: NetlinkSocket | undefined;

/** The kernel refused something about nftables. */
export class NftablesError extends CniError {
  override readonly name = 'NftablesError';
  /** Name of the kernel's error, such as "EOPNOTSUPP". */
  readonly errno: string;

  /** @param cause what the kernel said. */
  constructor(message: string, cause: NetlinkError, details?: string) {
    super(ErrorCode.Internal, message, details);
    this.errno = cause.code;
  }
}

/**
 * Reads or changes the nftables of the host's namespace.
 * @param work must have finished when it returns: the socket is shared.
 * @throws NftablesError that says what to do when the kernel refuses something.
 */
export function withNftables<T>(work: (socket: NetlinkSocket) => T): T {
  opened ??= new NetlinkSocket(NetlinkProtocol.Netfilter);
  try {
    return work(opened);
  } catch (error) {
    if (error instanceof NetlinkError) throw explained(error);
    if (error instanceof KernelError) {
      // The socket may still hold answers to this request, which the next caller must not read as its own.
      opened.close();
      opened = undefined;
    }
    throw error;
  }
}

/**
 * The rules of a chain of the host.
 * @param look shares what it finds with other calls of a read-only process.
 * @throws NftablesError
 */
export function seenRules(table: NftTable, chain: string, look: Once = eachTime): readonly NftRule[] {
  return look(`nftables ${table.family} ${table.name} ${chain}`, () =>
    withNftables((socket) => listRules(socket, table, chain)),
  );
}

/**
 * Whether packets get from one chain of a table to another, by jumps that may have conditions.
 * @param look as for {@link seenRules}.
 * @throws NftablesError
 */
export function leadsTo(table: NftTable, from: string, to: string, look?: Once): boolean {
  const seen = new Set<string>();
  const visit = (chain: string | undefined): boolean => {
    if (chain === undefined || seen.has(chain)) return false;
    seen.add(chain);
    return chain === to || seenRules(table, chain, look).some((rule) => visit(targetChain(rule)));
  };
  return visit(from);
}

/** @throws NftablesError when the kernel has no nftables. */
export function requireNftables(): void {
  withNftables((socket) => {
    try {
      readGeneration(socket);
    } catch (error) {
      throw error instanceof NetlinkError ? missing(error) : error;
    }
  });
}

function missing(error: NetlinkError): NftablesError {
  const message = 'The kernel has no nftables. Load the module "nf_tables", or set the backend to "iptables"';
  return new NftablesError(message, error, error.message);
}

/** What to do about errors of a change, by their code. */
const remedies: Record<string, string> = {
  EPERM:
    'Run the plugin with CAP_NET_ADMIN; if it has that, the table belongs to another program: have that program let the packets through',
  EACCES: 'Run the plugin with CAP_NET_ADMIN',
  ENOENT:
    'The kernel lacks a part of nftables: load the modules "nft_ct", "nft_masq", "nft_nat" and "nft_fib_inet"',
  EOPNOTSUPP:
    'The kernel lacks a part of nftables, or cannot combine these: update it, or set the backend to "iptables"',
  EEXIST: 'Something of that name, but of another kind, is in the table: rename or delete it',
  EBUSY: 'Something in the table is still in use: look for it with "nft list ruleset"',
  EINVAL: 'Compare what is there with "nft list ruleset", and delete what was made by hand',
  ENOMEM: 'Free some memory',
};

function explained(error: NetlinkError): NftablesError {
  const { code, index, message } = error;
  // An error of the transaction itself, rather than of a request in it, is about nftables as a whole.
  if (index < 0 && ['EINVAL', 'EOPNOTSUPP'].includes(code)) return missing(error);
  const remedy = remedies[code] ?? 'Compare what is there with "nft list ruleset"';
  return new NftablesError(`${message}. ${remedy}`, error);
}

/** The table of nf_tables in which iptables keeps one of its tables. */
export function nftTableOf(family: Family, name: string): NftTable {
  return { family: family === 4 ? 'ip' : 'ip6', name };
}

/** How often a change is composed anew when others were faster. */
const changeTries = 10;
/** The same for an exclusive change, which any other change of the ruleset makes outdated. */
const exclusiveTries = 200;

/** A change that is made only if nobody has changed anything since it was composed. */
export interface ExclusiveChange {
  readonly exclusive: readonly Request[];
}

/**
 * Carries out a change that depends on what is there.
 * @param compose looks, and says what to do. It is asked `again` when something that it names has gone
 *   meanwhile, as may happen with two DELs at once.
 * @param registerUndo is called once the change is made, or may have been made because no answer came.
 */
export function changeNftables(
  compose: (socket: NetlinkSocket, again: boolean) => readonly Request[] | ExclusiveChange,
  registerUndo: () => void = () => {},
): void {
  withNftables((socket) => {
    for (let tries = 1; ; tries++) {
      const generation = generationOf(socket);
      const change = compose(socket, tries > 1);
      try {
        if ('exclusive' in change) transaction(socket, change.exclusive, generation);
        else transaction(socket, change);
        return registerUndo();
      } catch (error) {
        if (!(error instanceof NetlinkError)) registerUndo();
        const mayRepeat = isKernelError(error, 'ERESTART')
          ? tries < exclusiveTries
          : tries < changeTries && isKernelError(error, 'ENOENT', 'EBUSY');
        if (!mayRepeat) throw error;
      }
    }
  });
}

/** The generation of the ruleset; undefined when the kernel has no nftables, in which case a change fails. */
function generationOf(socket: NetlinkSocket): number | undefined {
  try {
    return readGeneration(socket);
  } catch (error) {
    if (error instanceof NetlinkError) return undefined;
    throw error;
  }
}

/** The packet is of this family: needed in tables of both families. */
export function isFamily(family: Family): Attribute[] {
  return meta('nfproto', Uint8Array.of(addressFamily[family]));
}

/** The packet's source or destination is, or is not, in a prefix. */
export function addressMatch(field: 'saddr' | 'daddr', op: '==' | '!=', prefix: Prefix): Attribute[] {
  const full = prefix.length === (prefix.family === 4 ? 32 : 128);
  return payload(
    'network',
    addressOffset[prefix.family][field],
    op,
    prefix.first.toBytes(),
    full ? undefined : prefix.mask.toBytes(),
  );
}

/** The packet's source or destination is an element of a set. */
export function addressIn(field: 'saddr' | 'daddr', family: Family, set: string): Attribute[] {
  return payloadIn('network', addressOffset[family][field], family === 4 ? 4 : 16, set);
}

/** True when a rule compares with an address, or leads to it. */
export function mentions(rule: NftRule, address: Address): boolean {
  const bytes = Buffer.from(address.toBytes());
  return rule.expressions.some((expression) => {
    const value = expressionValue(expression);
    return value !== undefined && bytes.equals(value);
  });
}

/** A name of an interface as the kernel compares it: sixteen bytes. */
export function interfaceName(name: string): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes.set(Buffer.from(name));
  return bytes;
}

/** The packet goes to a port. */
export function portMatch(protocol: string, port: number): Attribute[] {
  return [
    ...meta('l4proto', Uint8Array.of(protocolNumber[protocol]!)),
    ...payload('transport', 2, '==', portBytes(port)),
  ];
}

/** The connection goes to an address and port instead. */
export function dnatTo(address: Address, port: number): Attribute[] {
  return dnat(addressFamily[address.family], address.toBytes(), portBytes(port));
}

function portBytes(port: number): Uint8Array {
  return Uint8Array.of(port >> 8, port & 0xff);
}
