import test from 'ava';
import { parseDetails, parseName, union } from '../../../lib/firewall/claim-file.ts';

const tag = '0123456789abcdef-fedcba9876543210';

test('the name of a claim tells its address and attachment, and whether it is being released', (t) => {
  const claim = parseName(`10.5.0.2_${tag}.json`);
  t.like(claim, { file: `10.5.0.2_${tag}.json`, tag, isLeaving: false });
  t.is(`${claim?.address}`, '10.5.0.2');
  t.like(parseName(`fd00::2_${tag}.leaving`), { tag, isLeaving: true });
  for (const name of [
    `fd00:0::2_${tag}.json`,
    `10.5.0_${tag}.json`,
    `10.5.0.2_${tag}.new`,
    `10.5.0.2_${tag}.json.new`,
    '10.5.0.2_0123456789abcdef.json',
  ])
    t.is(parseName(name), undefined, name);
});

test('a claim is read as it was written, without what is no backend', (t) => {
  const details = { backends: ['firewalld', 'nftables'], zone: 'work', netns: '/run/netns/a' } as const;
  t.deepEqual(parseDetails(JSON.stringify(details)), { ...details, backends: [...details.backends] });
  const odd = { backends: ['iptables', 'pf', 7], zone: 7, netns: null };
  t.deepEqual(parseDetails(JSON.stringify(odd)), { backends: ['iptables'] });
  for (const [text, message] of [
    ['null', 'it holds no object'],
    ['"iptables"', 'it holds no object'],
    ['{}', 'it names no backends'],
    ['{"backends": "iptables"}', 'it names no backends'],
  ] as const)
    t.throws(() => parseDetails(text), { message }, text);
});

test('what was told before is kept, and what is told now comes last, once', (t) => {
  const before = { backends: ['iptables', 'nftables'], zone: 'work' } as const;
  t.deepEqual(union(before, { backends: ['iptables'], netns: '/n' }), {
    backends: ['nftables', 'iptables'],
    zone: 'work',
    netns: '/n',
  });
  // Where nothing can be read, it may have been any backend.
  t.deepEqual(union(undefined, { backends: ['iptables'] }).backends, ['firewalld', 'nftables', 'iptables']);
});
