from megatron.core.datasets.utils import get_blend_from_list


def get_blend_and_blend_per_split(args):
    if args.data_path:
        return get_blend_from_list(args.data_path), None
    paths = (args.train_data_path, args.valid_data_path, args.test_data_path)
    return None, [get_blend_from_list(path) for path in paths]
