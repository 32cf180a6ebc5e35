/** Valid input that several targets start from. */

const input = Buffer.from('{"cniVersion":"1.1.0"}');
/** What a launcher says on the agent's socket: its offer, its input and its acknowledgement. */
export const agentOffer = Buffer.concat([
  Buffer.from(['build', '4:1', '4:2', 'bridge', 'CNI_COMMAND=ADD', 'CNI_IFNAME=eth0', '', ''].join('\0')),
  Buffer.of(input.length, 0, 0, 0),
  input,
  Buffer.alloc(4),
  Buffer.from('A'),
]);
