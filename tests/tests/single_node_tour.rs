//! The tour of `make demo`: node, images, machine, console, stop; by the commands that a user types.

#[cfg(test)]
mod tests {
    use tests::single_node::SingleNode;
    use tests::tour;

    #[test]
    fn a_user_gets_from_nothing_to_a_login_and_back() {
        let Some(mut node) = SingleNode::new("soft") else {
            return;
        };
        let taken = tour::take(&mut node, false, |_| {});
        let times = taken.unwrap_or_else(|error| panic!("{error}\n{}", node.log()));
        assert!(times.running < times.prompt);
        node.ferrovirt(&["down"]).unwrap();
        assert_eq!(node.leftovers(), Vec::<String>::new());
    }
}
