import test from 'ava';
import { Attributes, be32Attr, bytesAttr, concat, nestedAttr } from '../../../lib/netlink/message.ts';
import { expressionValue, verdictIn } from '../../../lib/netlink/nftables/expressions.ts';

const expression = (name: string, ...attributes: Uint8Array[]) => ({
  name,
  data: new Attributes(concat(attributes)),
  payload: new Uint8Array(),
});
const value = Uint8Array.of(1, 2, 3, 4);

test('the value of an expression is that of a comparison or of a load, and is not there for a verdict', (t) => {
  // NFTA_CMP_DATA and NFTA_IMMEDIATE_DATA, with NFTA_DATA_VALUE in it.
  t.deepEqual(expressionValue(expression('cmp', nestedAttr(3, [bytesAttr(1, value)]))), value);
  t.deepEqual(expressionValue(expression('immediate', nestedAttr(2, [bytesAttr(1, value)]))), value);
  t.is(expressionValue(expression('lookup', nestedAttr(3, [bytesAttr(1, value)]))), undefined);
  t.is(expressionValue(expression('immediate', nestedAttr(2, [nestedAttr(2, [be32Attr(1, 1)])]))), undefined);
  for (const name of ['cmp', 'immediate']) t.is(expressionValue(expression(name)), undefined, name);
});

test('the verdict of an expression is that of a load', (t) => {
  const accept = nestedAttr(2, [nestedAttr(2, [be32Attr(1, 1)])]);
  t.deepEqual(verdictIn(expression('immediate', accept)), { verdict: 'accept' });
  t.deepEqual(verdictIn(expression('cmp', accept)), {});
  t.deepEqual(verdictIn(expression('immediate')), {});
  t.deepEqual(verdictIn(undefined), {});
});
