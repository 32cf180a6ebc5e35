/** nf_tables over netlink: tables, chains, rules and expressions as requests, and what the kernel has of them. */

export * from './nftables/expressions.ts';
export * from './nftables/objects.ts';
export * from './nftables/rules.ts';
export * from './nftables/sets.ts';
export { type NftFamily, type NftTable, readGeneration, transaction } from './nftables/wire.ts';
export * from './nftables/xtables.ts';
