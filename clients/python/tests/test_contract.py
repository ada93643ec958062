"""Reading access rules from a descriptor set."""

import unittest

import support

from drystone_mesh import Audit, Contract, ContractError, Factors, Method, Subject

HEADER = """
syntax = "proto3";
package acme.x.v1;
import "drystone/access/v1/access.proto";
message M {}
service S {
  option (drystone.access.v1.workload) = "x";
  rpc R(M) returns (M) { %s }
}
"""


def decode_rule(rule):
    option = f"option (drystone.access.v1.rule) = {{{rule}}};" if rule else ""
    return Contract.decode(support.compile_text(HEADER % option), "x")


class ContractTest(unittest.TestCase):
    def test_each_option_is_read(self):
        contract = Contract.decode(support.things_set().read_bytes(), "things")
        methods = {path.rpartition("/")[2]: method for path, method in contract.methods.items()}
        self.assertEqual(len(methods), 14)
        self.assertEqual(contract.permissions, ("things:manage", "things:read:own"))
        self.assertEqual(methods["ForAny"], Method("/acme.things.v1.ThingService/ForAny", ("any",)))
        user = methods["ForUser"]
        self.assertEqual((user.callers, user.subject, user.audit), (("outside", "user"), Subject.USER, Audit.TRAIL))
        self.assertEqual(methods["ForAuth"].audit, Audit.LOG)
        self.assertEqual(methods["ForManager"].permission, "things:manage")
        self.assertEqual(methods["ForManagerOrOperator"].subject, Subject.USER_OR_OPERATOR)
        self.assertEqual((methods["ForRecent"].factors, methods["ForRecent"].max_auth_age), (None, 300))
        self.assertEqual(methods["ForTwoFactors"].factors, Factors.TWO)
        self.assertEqual(methods["ForPasskey"].factors, Factors.PHISHING_RESISTANT)
        self.assertEqual((methods["Slow"].default_deadline, methods["Slow"].max_deadline), (0.2, 0.5))
        self.assertTrue(methods["Echo"].client_streaming and methods["Echo"].server_streaming)
        self.assertTrue(methods["Split"].server_streaming and not methods["Split"].client_streaming)

    def test_the_contracts_of_the_platform_are_read(self):
        content = support.platform_set().read_bytes()
        for workload in ("auth", "user", "session", "property"):
            contract = Contract.decode(content, workload)
            self.assertTrue(all(path.startswith(f"/drystone.{workload}.v1.") for path in contract.methods))
        self.assertIn("users:read", Contract.decode(content, "user").permissions)

    def test_only_the_services_of_the_workload_are_served(self):
        contract = Contract.decode(support.things_set().read_bytes(), "others")
        self.assertEqual(list(contract.methods), ["/acme.things.v1.OtherService/ForAny"])
        with self.assertRaisesRegex(ContractError, "no service"):
            Contract.decode(support.things_set().read_bytes(), "thing")

    def test_an_invalid_rule_is_an_error(self):
        valid = 'callers: ["auth"] subject: SUBJECT_NONE'
        self.assertEqual(len(decode_rule(valid).methods), 1)
        for rule, fault in (
            ("", "no access rule"),
            ('callers: ["auth"]', "subject"),
            ("subject: SUBJECT_NONE", "no callers"),
            (valid + ' permission: "x:y"', "SUBJECT_USER"),
            (valid + " max_auth_age: {seconds: 1}", "SUBJECT_USER"),
            (valid + " factors: FACTORS_TWO", "SUBJECT_USER"),
            ('callers: ["auth"] subject: SUBJECT_USER factors: 9', "unknown `factors`"),
            ('callers: ["auth"] subject: SUBJECT_USER max_auth_age: {seconds: -1}', "positive"),
            ('callers: ["auth"] subject: SUBJECT_USER_OR_OPERATOR', "does not list `operator`"),
        ):
            with self.subTest(rule), self.assertRaisesRegex(ContractError, fault):
                decode_rule(rule)

    def test_an_incomplete_descriptor_set_is_an_error(self):
        from google.protobuf import descriptor_pb2

        whole = descriptor_pb2.FileDescriptorSet.FromString(support.things_set().read_bytes())
        alone = descriptor_pb2.FileDescriptorSet(file=[whole.file[-1]])
        for content in (b"\xff\xff", b"", alone.SerializeToString(), support.things_set().read_bytes()[:-7]):
            with self.assertRaises(ContractError):
                Contract.decode(content, "things")

    def test_callers_of_a_rule(self):
        def allowed(*callers):
            method = Method("/a.B/C", callers)
            names = (*support.WORKLOADS, "outside", "any", "", "Auth")
            return {name for name in names if method.allows(name)}

        entry_points = {"edge", "ingress", "operator"}
        self.assertEqual(allowed("auth", "user"), {"auth", "user"})
        self.assertEqual(allowed("outside"), {"edge", "ingress"})
        self.assertEqual(allowed("any") & set(support.WORKLOADS), set(support.WORKLOADS) - entry_points)
        self.assertEqual(allowed("any", "operator", "outside") & set(support.WORKLOADS), set(support.WORKLOADS))
        self.assertEqual(allowed(), set())


if __name__ == "__main__":
    unittest.main()
